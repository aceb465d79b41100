package identity

import (
	"encoding/json"
	"net"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
)

// Bootstrap is what cloud-init tells the agent, in JSON with mode 0600.
type Bootstrap struct {
	ClusterID string `json:"cluster_id"`
	MachineID string `json:"machine_id"`
	// Attempt counts the launches of the machine; the token is bound to it.
	Attempt uint32 `json:"attempt"`
	// Token is the one-time token; empty once it was used.
	Token string `json:"token"`
	// CAPins are base64 SHA-256 sums of the authorities' public keys (RFC 7469, section 2.4).
	CAPins []string `json:"ca_pins"`
	// AgentEndpoints are host:port of the servers' port for agents.
	AgentEndpoints []string `json:"agent_endpoints"`
}

// ParseBootstrap reads a bootstrap file. Unknown fields are ignored, for files written by newer servers.
func ParseBootstrap(data []byte) (*Bootstrap, error) {
	var b Bootstrap
	// The cause may quote the token, so it is left out.
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, errs.New(errs.Invalid, "cannot read bootstrap file: it is not JSON of the expected form")
	}
	switch {
	case b.ClusterID == "" || b.MachineID == "":
		return nil, errs.New(errs.Invalid, "cannot read bootstrap file: cluster_id or machine_id is missing")
	case len(b.CAPins) == 0:
		return nil, errs.New(errs.Invalid, "cannot read bootstrap file: ca_pins is empty")
	case len(b.AgentEndpoints) == 0:
		return nil, errs.New(errs.Invalid, "cannot read bootstrap file: agent_endpoints is empty")
	}
	return &b, checkEndpoints(b.AgentEndpoints)
}

func checkEndpoints(endpoints []string) error {
	for _, e := range endpoints {
		if _, _, err := net.SplitHostPort(e); err != nil {
			return errs.New(errs.Invalid, "cannot use server endpoint %q: not host:port", e)
		}
	}
	return nil
}

// scrub removes the token from the bootstrap file and keeps all else in it.
func scrub(h host.Host, path string) error {
	data, err := h.ReadFile(path)
	if err != nil {
		return errs.New(errs.Internal, "cannot scrub the join token: %w", err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return errs.New(errs.Internal, "cannot scrub the join token: bootstrap file is not a JSON object")
	}
	if string(fields["token"]) == `""` {
		return nil
	}
	fields["token"] = json.RawMessage(`""`)
	data, err = json.MarshalIndent(fields, "", "  ")
	if err != nil {
		return errs.New(errs.Internal, "cannot scrub the join token: %w", err)
	}
	if err := h.WriteFile(path, append(data, '\n'), host.Attributes{Mode: 0o600}); err != nil {
		return errs.New(errs.Internal, "cannot scrub the join token: %w", err)
	}
	return nil
}
