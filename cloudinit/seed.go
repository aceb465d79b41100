package cloudinit

import (
	"fmt"
	"net"
	"regexp"
	"strconv"

	"github.com/provisionr/provisionr/internal/errs"
)

// Seed is what the stub is rendered from.
type Seed struct {
	// ClusterID and MachineID name the machine: lower-case letters, digits and hyphens.
	ClusterID, MachineID string
	// Attempt counts the launches of the machine from 1; the tokens are bound to it.
	Attempt uint32
	// JoinToken and BeaconToken are base64url.
	JoinToken, BeaconToken string
	// FQDN without a final dot; its first label becomes the hostname.
	FQDN string
	// CAPins are base64 SHA-256 hashes of CA public keys (RFC 7469 section 2.4); one to eight.
	CAPins []string
	// APIEndpoints serve the agent and take beacons, AgentEndpoints take the agent's sessions: host:port, one to sixteen.
	APIEndpoints, AgentEndpoints []string
	// AgentSHA256 is the hexadecimal hash of the agent by GOARCH: amd64, arm64 or both.
	AgentSHA256 map[string]string
}

var (
	idPattern    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,62}[a-z0-9])?$`)
	tokenPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{16,128}={0,2}$`)
	pinPattern   = regexp.MustCompile(`^[A-Za-z0-9+/]{43}=$`)
	hashPattern  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	namePattern  = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	hostPattern  = regexp.MustCompile(`^[A-Za-z0-9.:-]{1,253}$`)
)

// architectures are those that an agent is built for, by GOARCH.
var architectures = []string{"amd64", "arm64"}

// validate returns the first thing that is wrong, as an errs.Invalid error. Tokens are never part of the message.
func (s Seed) validate() error {
	switch {
	case !idPattern.MatchString(s.ClusterID):
		return invalid("cluster id %q", s.ClusterID)
	case !idPattern.MatchString(s.MachineID):
		return invalid("machine id %q", s.MachineID)
	case s.Attempt == 0:
		return invalid("attempt 0")
	case !tokenPattern.MatchString(s.JoinToken):
		return invalid("join token")
	case !tokenPattern.MatchString(s.BeaconToken):
		return invalid("beacon token")
	case s.BeaconToken == s.JoinToken:
		return invalid("beacon token: it must not be the join token")
	case len(s.FQDN) > 253 || !namePattern.MatchString(s.FQDN):
		return invalid("fqdn %q", s.FQDN)
	case len(s.CAPins) == 0 || len(s.CAPins) > 8:
		return invalid("number of CA pins %d", len(s.CAPins))
	case len(s.AgentSHA256) == 0:
		return invalid("agent hashes: there are none")
	}
	for _, pin := range s.CAPins {
		if !pinPattern.MatchString(pin) {
			return invalid("CA pin %q", pin)
		}
	}
	for arch, hash := range s.AgentSHA256 {
		if (arch != architectures[0] && arch != architectures[1]) || !hashPattern.MatchString(hash) {
			return invalid("agent hash %q for architecture %q", hash, arch)
		}
	}
	if err := validateEndpoints("API", s.APIEndpoints); err != nil {
		return err
	}
	return validateEndpoints("agent", s.AgentEndpoints)
}

func validateEndpoints(kind string, endpoints []string) error {
	if len(endpoints) == 0 || len(endpoints) > 16 {
		return invalid("number of %s endpoints %d", kind, len(endpoints))
	}
	for _, endpoint := range endpoints {
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil || !hostPattern.MatchString(host) {
			return invalid("%s endpoint %q", kind, endpoint)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return invalid("port of %s endpoint %q", kind, endpoint)
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	return errs.New(errs.Invalid, "cannot render user-data: invalid %s", fmt.Sprintf(format, args...))
}
