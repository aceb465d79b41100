package cloudinit

import (
	_ "embed"
	"encoding/json"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

//go:embed adopt.sh
var adoptScript string

// endOfFile ends each file within the script of Adopt. No file has such a line: values are of narrow alphabets.
const endOfFile = "PROVISIONR_END_OF_FILE"

// Adopt returns a shell script that has an existing machine join: it writes the files that the stub of [Render] has
// cloud-init write, and starts the same unit. It is for root, under systemd, harmless when repeated, and refuses a machine
// that was adopted as another. It holds the join token. Errors are errs.Invalid; they never hold a token.
func Adopt(s Seed) ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# Has this machine join cluster " + s.ClusterID + " as " + s.FQDN + ".\n")
	b.WriteString("machine_id='" + s.MachineID + "'\nfqdn='" + s.FQDN + "'\n")
	b.WriteString(adoptScript)
	b.WriteString("files() {\n")
	for _, f := range files {
		b.WriteString("\tput " + f.path + " " + f.mode + " <<'" + endOfFile + "'\n" + f.content + endOfFile + "\n")
	}
	b.WriteString("}\n\nadopt\n")
	return []byte(b.String()), nil
}

// file is one that a machine has before its agent runs.
type file struct{ path, mode, content string }

// files are all of them; each content ends with a newline.
func (s Seed) files() ([]file, error) {
	bootstrap, err := json.Marshal(Bootstrap{
		ClusterID: s.ClusterID, MachineID: s.MachineID, Attempt: s.Attempt, Token: s.JoinToken, CAPins: s.CAPins,
		AgentEndpoints: s.AgentEndpoints,
	})
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode the bootstrap file: %w", err)
	}
	return []file{
		{BootstrapPath, "0600", string(bootstrap) + "\n"},
		{valuesPath, "0600", s.values()},
		{scriptPath, "0700", bootstrapScript},
		{"/etc/systemd/system/" + BootstrapUnit, "0644", bootstrapUnit},
		{"/etc/systemd/system/" + AgentUnit, "0644", agentUnit},
	}, nil
}
