package service

import (
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/systemdunit"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	unitDir = systemdunit.Dir
	// dropIn comes after those that packages bring.
	dropIn = ".d/60-provisionr.conf"
	header = systemdunit.Header
)

func contentPath(unit string) string { return unitDir + unit }

func overridePath(unit string) string { return unitDir + unit + dropIn }

// unitFiles returns the unit's files as wanted. A file of the system's administrator is left alone where the manifest has
// none of its own.
func unitFiles(h *host.Host, want *agentv1.Service) ([]conffile.File, error) {
	override := conffile.File{Path: overridePath(want.Name), Content: []byte(header + want.GetOverride()), Absent: want.Override == nil}
	files := []conffile.File{override}
	content := conffile.File{Path: contentPath(want.Name), Content: []byte(header + want.GetContent()), Absent: want.Content == nil || want.Masked}
	if content.Absent {
		// The link that masks a unit is not ours.
		ours, err := systemdunit.Begins(h, content.Path, header)
		if err != nil || !ours {
			return files, err
		}
	}
	return append(files, content), nil
}

// watched returns the files whose content the unit was started with: those that the manifest names, and its own.
func watched(want *agentv1.Service) []string {
	files := append([]string(nil), want.RestartOn...)
	if want.Content != nil {
		files = append(files, contentPath(want.Name))
	}
	if want.Override != nil {
		files = append(files, overridePath(want.Name))
	}
	return files
}

// isUnitFile reports whether systemd must read its files again when the file changed.
func isUnitFile(path string) bool { return strings.HasPrefix(path, "/etc/systemd/") }
