package cloudinit_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/errs"
)

var update = flag.Bool("update", false, "write the golden files anew")

func seed() cloudinit.Seed {
	return cloudinit.Seed{
		ClusterID: "c-7x2k9q", MachineID: "m-abcdefghijklmnop", Attempt: 1,
		JoinToken:    "am9pbi10b2tlbi1qb2luLXRva2VuLWpvaW4tdG9rZW4",
		BeaconToken:  "YmVhY29uLXRva2VuLWJlYWNvbi10b2tlbi1iZWFjb24",
		FQDN:         "web-1.provisionr.internal",
		CAPins:       []string{"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
		APIEndpoints: []string{"10.88.0.1:7443", "[fd00::1]:7443"}, AgentEndpoints: []string{"10.88.0.1:7444"},
		AgentSHA256: map[string]string{"amd64": strings.Repeat("0a", 32), "arm64": strings.Repeat("1b", 32)},
	}
}

// document is the part of cloud-init's schema that the stub uses; unknown keys fail the decoding.
type document struct {
	Hostname       string   `yaml:"hostname"`
	FQDN           string   `yaml:"fqdn"`
	ManageEtcHosts bool     `yaml:"manage_etc_hosts"`
	Locale         bool     `yaml:"locale"`
	SSHGenKeyTypes []string `yaml:"ssh_genkeytypes"`
	PackageUpdate  bool     `yaml:"package_update"`
	PackageUpgrade bool     `yaml:"package_upgrade"`
	WriteFiles     []struct {
		Path        string `yaml:"path"`
		Permissions string `yaml:"permissions"`
		Content     string `yaml:"content"`
	} `yaml:"write_files"`
	RunCmd [][]string `yaml:"runcmd"`
}

func parse(t *testing.T, userData []byte) document {
	t.Helper()
	if !bytes.HasPrefix(userData, []byte("#cloud-config\n")) {
		t.Fatalf("user-data starts with %.20q: cloud-init would not take it for a cloud-config", userData)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(userData))
	decoder.KnownFields(true)
	var d document
	if err := decoder.Decode(&d); err != nil {
		t.Fatalf("cannot parse user-data: %v", err)
	}
	return d
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), run with -update if that is right:\n%s", path, diff)
	}
}

func TestRenderGolden(t *testing.T) {
	got, err := cloudinit.Render(seed())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "user-data.golden", got)
	if len(got) > cloudinit.MaxSize/2 {
		t.Errorf("an ordinary stub has %d bytes: no room is left for more endpoints", len(got))
	}
}

func TestRenderedFiles(t *testing.T) {
	s := seed()
	userData, err := cloudinit.Render(s)
	if err != nil {
		t.Fatal(err)
	}
	d := parse(t, userData)
	files := map[string]string{}
	modes := map[string]string{}
	for _, f := range d.WriteFiles {
		files[f.Path], modes[f.Path] = f.Content, f.Permissions
	}
	var got cloudinit.Bootstrap
	if err := json.Unmarshal([]byte(files[cloudinit.BootstrapPath]), &got); err != nil {
		t.Fatalf("cannot parse the bootstrap file: %v", err)
	}
	want := cloudinit.Bootstrap{
		ClusterID: s.ClusterID, MachineID: s.MachineID, Attempt: 1, Token: s.JoinToken, CAPins: s.CAPins,
		AgentEndpoints: s.AgentEndpoints,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bootstrap file (-want +got):\n%s", diff)
	}
	if modes[cloudinit.BootstrapPath] != "0600" || modes["/etc/provisionr/bootstrap.env"] != "0600" {
		t.Errorf("files with tokens are readable by others: %v", modes)
	}
	for path, content := range files {
		if path != cloudinit.BootstrapPath && strings.Contains(content, s.JoinToken) {
			t.Errorf("the join token is in %s, from where it may be sent unencrypted", path)
		}
	}
	for _, command := range d.RunCmd {
		if command[1] == "start" && !strings.Contains(strings.Join(command, " "), "--no-block") {
			t.Errorf("%v holds up the boot", command)
		}
	}
	if d.Hostname != "web-1" || d.FQDN != s.FQDN {
		t.Errorf("named %q, %q", d.Hostname, d.FQDN)
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, change := range map[string]func(*cloudinit.Seed){
		"cluster id with quote":   func(s *cloudinit.Seed) { s.ClusterID = "c'" },
		"machine id with line":    func(s *cloudinit.Seed) { s.MachineID = "m-1\nruncmd: [reboot]" },
		"no attempt":              func(s *cloudinit.Seed) { s.Attempt = 0 },
		"short token":             func(s *cloudinit.Seed) { s.JoinToken = "abc" },
		"token with substitution": func(s *cloudinit.Seed) { s.BeaconToken = "$(reboot)$(reboot)$(reboot)" },
		"beacon is join token":    func(s *cloudinit.Seed) { s.BeaconToken = s.JoinToken },
		"name with dot":           func(s *cloudinit.Seed) { s.FQDN = "web-1.internal." },
		"no pins":                 func(s *cloudinit.Seed) { s.CAPins = nil },
		"bad pin":                 func(s *cloudinit.Seed) { s.CAPins = []string{"x"} },
		"no endpoints":            func(s *cloudinit.Seed) { s.APIEndpoints = nil },
		"endpoint without port":   func(s *cloudinit.Seed) { s.APIEndpoints = []string{"10.0.0.1"} },
		"endpoint with space":     func(s *cloudinit.Seed) { s.APIEndpoints = []string{"10.0.0.1 x:7443"} },
		"endpoint port 0":         func(s *cloudinit.Seed) { s.AgentEndpoints = []string{"10.0.0.1:0"} },
		"endpoint port +1":        func(s *cloudinit.Seed) { s.AgentEndpoints = []string{"10.0.0.1:+1"} },
		"no hashes":               func(s *cloudinit.Seed) { s.AgentSHA256 = nil },
		"foreign architecture":    func(s *cloudinit.Seed) { s.AgentSHA256 = map[string]string{"x'": strings.Repeat("0", 64)} },
	} {
		t.Run(name, func(t *testing.T) {
			s := seed()
			s.AgentSHA256 = maps.Clone(s.AgentSHA256)
			change(&s)
			got, err := cloudinit.Render(s)
			if !errs.Is(err, errs.Invalid) || got != nil {
				t.Fatalf("Render = %d bytes, %v; want an invalid error", len(got), err)
			}
			if strings.Contains(err.Error(), seed().JoinToken) {
				t.Error("the error holds the join token")
			}
		})
	}
}

func TestLargestSeedFits(t *testing.T) {
	s := seed()
	long := strings.Repeat("a", 60) + ".example.com:7443"
	for range 15 {
		s.APIEndpoints = append(s.APIEndpoints[:len(s.APIEndpoints):len(s.APIEndpoints)], long)
		s.AgentEndpoints = append(s.AgentEndpoints[:len(s.AgentEndpoints):len(s.AgentEndpoints)], long)
	}
	s.APIEndpoints = s.APIEndpoints[:16]
	if userData, err := cloudinit.Render(s); err != nil || len(userData) > cloudinit.MaxSize {
		t.Errorf("sixteen endpoints do not fit: %d bytes, %v", len(userData), err)
	}
}

// FuzzRender shows that whatever Render accepts parses to the same structure: nothing but values differs.
func FuzzRender(f *testing.F) {
	s := seed()
	f.Add(s.ClusterID, s.MachineID, s.JoinToken, s.BeaconToken, s.FQDN, s.CAPins[0], s.APIEndpoints[0], s.AgentSHA256["amd64"])
	f.Add("c", "m", "0123456789abcdef", "0123456789abcdeg", "a", "", "h:1", "'; reboot; '")
	f.Add("c\n", "m\x00", "$(id)", "`id`", "a\nb", "\"", "h:1\n- x", "\u2028")
	f.Fuzz(func(t *testing.T, cluster, machine, join, beacon, fqdn, pin, endpoint, hash string) {
		s := cloudinit.Seed{
			ClusterID: cluster, MachineID: machine, Attempt: 1, JoinToken: join, BeaconToken: beacon, FQDN: fqdn,
			CAPins: []string{pin}, APIEndpoints: []string{endpoint}, AgentEndpoints: []string{endpoint},
			AgentSHA256: map[string]string{"amd64": hash},
		}
		userData, err := cloudinit.Render(s)
		if err != nil {
			if !errs.Is(err, errs.Invalid) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		d := parse(t, userData)
		if len(d.WriteFiles) != 5 || len(d.RunCmd) != 2 || d.FQDN != fqdn {
			t.Fatalf("a value changed the structure: %q", userData)
		}
		var b cloudinit.Bootstrap
		if err := json.Unmarshal([]byte(d.WriteFiles[0].Content), &b); err != nil || b.Token != join || b.MachineID != machine {
			t.Fatalf("the bootstrap file lost its values: %q, %v", d.WriteFiles[0].Content, err)
		}
		for line := range strings.Lines(d.WriteFiles[1].Content) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if !ok || name == "" || len(value) < 2 || strings.Contains(value[1:len(value)-1], "'") {
				t.Fatalf("a value left its quotes: %q", line)
			}
		}
	})
}

func TestNoCloudGolden(t *testing.T) {
	meta, err := cloudinit.MetaData("m-abcdefghijklmnop", "web-1.provisionr.internal")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "meta-data.golden", meta)
	network, err := cloudinit.NetworkConfig(cloudinit.Network{
		Address: netip.MustParsePrefix("10.88.0.5/24"), Gateway: netip.MustParseAddr("10.88.0.1"),
		Nameservers: []netip.Addr{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd00::1")},
		Search:      []string{"provisionr.internal"},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "network-config.golden", network)
	var parsed struct {
		Version   int `yaml:"version"`
		Ethernets map[string]struct {
			AcceptRA  bool     `yaml:"accept-ra"`
			Addresses []string `yaml:"addresses"`
			Routes    []struct{ To, Via string }
		}
	}
	if err := yaml.Unmarshal(network, &parsed); err != nil {
		t.Fatal(err)
	}
	eth0 := parsed.Ethernets["eth0"]
	if parsed.Version != 2 || eth0.AcceptRA || eth0.Addresses[0] != "10.88.0.5/24" || eth0.Routes[0].Via != "10.88.0.1" {
		t.Errorf("network-config says %+v", parsed)
	}
}

func TestNoCloudRefuses(t *testing.T) {
	if _, err := cloudinit.MetaData("m-1'", "web-1"); !errs.Is(err, errs.Invalid) {
		t.Errorf("bad machine id: %v", err)
	}
	if _, err := cloudinit.MetaData("m-1", "web_1\n"); !errs.Is(err, errs.Invalid) {
		t.Errorf("bad host name: %v", err)
	}
	good := netip.MustParsePrefix("10.88.0.5/24")
	for name, n := range map[string]cloudinit.Network{
		"no address":      {},
		"interface":       {Address: good, Interface: "eth0: {}"},
		"foreign gateway": {Address: good, Gateway: netip.MustParseAddr("10.99.0.1")},
		"zoned server":    {Address: good, Nameservers: []netip.Addr{netip.MustParseAddr("fe80::1%a'b")}},
		"search":          {Address: good, Search: []string{"a b"}},
	} {
		if _, err := cloudinit.NetworkConfig(n); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want an invalid error", name, err)
		}
	}
}
