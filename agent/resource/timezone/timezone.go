package timezone

import (
	"context"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	linkPath = "/etc/localtime"
	namePath = "/etc/timezone"
	zoneDir  = "/usr/share/zoneinfo/"
)

// New returns the resource for the time zone; none where it is left as it is.
func New(s *desired.State, h *host.Host) []converge.Resource {
	zone := s.Pool.GetTimezone()
	if zone == "" {
		return nil
	}
	r := &timezone{host: h, zone: zone}
	if distribution := s.Machine.GetOs().GetDistribution(); distribution == "debian" || distribution == "ubuntu" {
		r.name = &conffile.File{Path: namePath, Content: []byte(zone + "\n")}
	}
	return []converge.Resource{r}
}

type timezone struct {
	host *host.Host
	zone string
	// name is nil where the distribution has no such file.
	name *conffile.File
	seen conffile.Seen
}

// Name implements converge.Resource.
func (r *timezone) Name() string { return "timezone/" + linkPath }

// After implements converge.Ordered: a package brings the zones.
func (r *timezone) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (r *timezone) Triggers() []converge.Trigger {
	triggers := []converge.Trigger{{Kind: converge.OnFile, Name: linkPath}}
	if r.name != nil {
		triggers = append(triggers, converge.Trigger{Kind: converge.OnFile, Name: namePath})
	}
	return triggers
}

// Check implements converge.Resource.
func (r *timezone) Check(context.Context) (converge.Diff, error) {
	// timedatectl(1) makes the same link relative to its place.
	text, err := conffile.CheckLink(r.host, linkPath, ".."+zoneDir+r.zone, nil)
	if err == nil && text != "" {
		text, err = conffile.CheckLink(r.host, linkPath, zoneDir+r.zone, nil)
	}
	if err != nil || r.name == nil {
		return converge.Diff{Text: text}, err
	}
	name, err := conffile.Check(r.host, r.name, &r.seen)
	return converge.Diff{Text: textdiff.Join(text, name)}, err
}

// Apply implements converge.Resource.
func (r *timezone) Apply(context.Context) error {
	if !conffile.Exists(r.host, zoneDir+r.zone) {
		return errs.New(errs.NotFound, "cannot set the time zone %s: %s does not exist", r.zone, zoneDir+r.zone).
			WithHint("see ls %s on the machine; old names may be in package tzdata-legacy", zoneDir)
	}
	if err := conffile.ApplyLink(r.host, linkPath, zoneDir+r.zone, nil); err != nil || r.name == nil {
		return err
	}
	return conffile.Apply(r.host, r.name)
}
