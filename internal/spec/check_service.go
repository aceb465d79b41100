package spec

import (
	"path"
	"slices"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// UnitName completes the name of a systemd unit: nginx is nginx.service.
func UnitName(name string) string {
	switch path.Ext(name) {
	case ".service", ".socket", ".timer", ".path", ".mount", ".target", ".automount", ".swap", ".slice":
		return name
	}
	return name + ".service"
}

func checkServices(d *document, spec *provisionrv1.PoolSpec) {
	services := spec.Services
	d.unique("spec.services", len(services), func(i int) (string, string) {
		if services[i].Name == "" {
			return "name", ""
		}
		return "name", UnitName(services[i].Name)
	})
	var files []string
	for _, f := range spec.Files {
		if !f.Absent {
			files = append(files, f.Path)
		}
	}
	for i, s := range services {
		p := at("spec.services", i)
		if UnitName(s.Name) == "provisionr-agent.service" {
			d.complain(join(p, "name"), "", "the agent is not a service of the pool")
		}
		checkUnit(d, p, s)
		d.unique(join(p, "restartOn"), len(s.RestartOn), func(j int) (string, string) { return "", s.RestartOn[j] })
		for j, file := range s.RestartOn {
			if !slices.Contains(files, file) {
				hint := near(file, files)
				if hint == "" {
					hint = "declare it in spec.files"
				}
				d.complain(at(join(p, "restartOn"), j), hint, "%s is not a file of this pool", show(file))
			}
		}
	}
}

// checkUnit checks the definition of a unit, and that it goes with the state.
func checkUnit(d *document, p string, s *provisionrv1.Service) {
	if s.Masked {
		switch {
		case s.State != "stopped":
			d.complain(join(p, "masked"), "write state: stopped", "a masked unit cannot run")
		case s.GetEnabled():
			d.complain(join(p, "enabled"), "remove enabled or masked", "a masked unit cannot be enabled")
		case s.Content != nil || s.Override != nil:
			d.complain(join(p, "masked"), "remove masked, or content and override", "a masked unit has no content")
		}
	}
	if s.Content != nil && s.Override != nil {
		d.complain(join(p, "override"), "write it into content", "a unit whose content is given needs no override")
	}
	for _, text := range []struct {
		field string
		is    *string
	}{{"content", s.Content}, {"override", s.Override}} {
		if text.is == nil {
			continue
		}
		first := ""
		for line := range strings.Lines(*text.is) {
			if first = strings.TrimSpace(line); first != "" && first[0] != '#' && first[0] != ';' {
				break
			}
		}
		switch {
		case strings.ContainsRune(*text.is, 0):
			d.complain(join(p, text.field), "", "has a zero character in it")
		case !strings.HasPrefix(first, "["):
			d.complain(join(p, text.field), "begin with a section, as [Service]", "is not a unit of systemd")
		}
	}
}
