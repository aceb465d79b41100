package cloudinit

import (
	_ "embed"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// MaxSize bounds user-data in bytes: EC2 takes 16 KiB before encoding, less than every other provider.
const MaxSize = 16 << 10

// Paths on the machine. The agent reads BootstrapPath.
const (
	BootstrapPath = "/etc/provisionr/bootstrap.json"
	AgentPath     = "/usr/local/lib/provisionr/provisionr-agent"
	AgentUnit     = "provisionr-agent.service"
	BootstrapUnit = "provisionr-bootstrap.service"

	scriptPath = "/usr/local/lib/provisionr/bootstrap"
	valuesPath = "/etc/provisionr/bootstrap.env"
)

//go:embed bootstrap.sh
var bootstrapScript string

//go:embed provisionr-bootstrap.service
var bootstrapUnit string

//go:embed provisionr-agent.service
var agentUnit string

// Bootstrap is the file at BootstrapPath, mode 0600.
type Bootstrap struct {
	ClusterID string `json:"cluster_id"`
	MachineID string `json:"machine_id"`
	Attempt   uint32 `json:"attempt"`
	// Token is the one-time join token.
	Token          string   `json:"token"`
	CAPins         []string `json:"ca_pins"`
	AgentEndpoints []string `json:"agent_endpoints"`
}

// Render returns the user-data. Errors are errs.Invalid; they never hold a token.
func Render(s Seed) ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	hostname, _, _ := strings.Cut(s.FQDN, ".")
	var b strings.Builder
	b.WriteString("#cloud-config\n")
	b.WriteString("hostname: '" + hostname + "'\n")
	b.WriteString("fqdn: '" + s.FQDN + "'\n")
	// The agent owns /etc/hosts and the accounts; generating locales and RSA keys costs seconds.
	b.WriteString("manage_etc_hosts: false\nlocale: false\nssh_genkeytypes: [ed25519]\n")
	b.WriteString("package_update: false\npackage_upgrade: false\n")
	b.WriteString("write_files:\n")
	for _, f := range files {
		writeFile(&b, f)
	}
	// Enabling has systemd read the unit files, once for both: each time costs a booting machine a quarter of a second.
	// Without --no-block the rest of the boot would wait for the download.
	b.WriteString("runcmd:\n")
	b.WriteString("- [systemctl, enable, " + BootstrapUnit + ", " + AgentUnit + "]\n")
	b.WriteString("- [systemctl, start, --no-block, " + BootstrapUnit + "]\n")
	if b.Len() > MaxSize {
		return nil, errs.New(errs.Invalid, "cannot render user-data: it has %d bytes, more than %d", b.Len(), MaxSize).
			WithHint("name fewer endpoints")
	}
	return []byte(b.String()), nil
}

// values is the script's configuration as shell assignments.
func (s Seed) values() string {
	var b strings.Builder
	assign := func(name, value string) { b.WriteString(name + "='" + value + "'\n") }
	assign("machine_id", s.MachineID)
	assign("attempt", strconv.FormatUint(uint64(s.Attempt), 10))
	assign("beacon_token", s.BeaconToken)
	assign("endpoints", strings.Join(s.APIEndpoints, " "))
	for _, arch := range architectures {
		assign("sha256_"+arch, s.AgentSHA256[arch])
	}
	return b.String()
}

// writeFile adds one entry of write_files with its content as a literal block scalar.
func writeFile(b *strings.Builder, f file) {
	b.WriteString("- path: " + f.path + "\n  permissions: '" + f.mode + "'\n  content: |\n")
	for line := range strings.Lines(f.content) {
		if line != "\n" {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
}
