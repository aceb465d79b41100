//go:build machine

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// everything is a pool with all assumptions that a machine without a kernel of its own can have. Its verbs are the gateway, the
// hashes of the archive's key, of a program and of an archive, and the mode.
const everything = `
apiVersion: provisionr/v1
kind: Vpn
metadata: {name: mesh}
spec: {cidr: 10.98.0.0/24}
---
apiVersion: provisionr/v1
kind: Pool
metadata: {name: full}
spec:
  size: 2
  mode: %[5]s
  os: {distribution: debian, release: "12"}
  roles: [worker]
  safety: {silentAfter: 300s}
  verify: {profiles: [hadoop]}
  repositories:
    - {name: backports, uris: ["http://deb.debian.org/debian"], suites: [bookworm-backports], components: [main],
       signedByUrl: "http://%[1]s:8099/archive.gpg", signedBySha256: %[2]s}
  packages: [{name: tree, hold: true}, {name: telnet, absent: true}]
  downloads:
    - {path: /usr/local/bin/hello, urls: ["http://%[1]s:8099/none", "http://%[1]s:8099/hello"], sha256: %[3]s}
    - {path: /opt/app, urls: ["http://%[1]s:8099/app.tar.gz"], sha256: %[4]s, extract: true, strip: 1}
  groups: [{name: crew, gid: 4321}]
  users:
    - {name: ops, admin: true}
    - {name: ada, groups: [crew], sudo: [/usr/bin/id], sshKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0pZYmTbCSgtq6VGvFgYX5Ovv1dH4NfmtmxvHCaW6nX ada@example"]}
  files:
    - {path: /etc/full, directory: true, mode: "0750"}
    - {path: /etc/full/content, content: "as desired\n"}
    - {path: /etc/full/template, template: "{{ .Machine.FQDN }} of {{ len .Pool.Members }}\n"}
    - {path: /etc/full/link, link: content}
    - {path: /etc/full/secret, secret: token}
    - {path: /etc/full/none, absent: true}
  ssh: {settings: {MaxAuthTries: "3"}}
  sysctl: {net.core.somaxconn: "2048"}
  timezone: Europe/Berlin
  locale: C.UTF-8
  ntp: {servers: ["%[1]s"], pools: [2.debian.pool.ntp.org]}
  networking:
    addresses: [192.0.2.7/32]
    routes: [{to: 198.51.100.0/24, via: "%[1]s"}]
  vpn: {name: mesh}
  services:
    - {name: full, restartOn: [/etc/full/content], content: "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"}
    - {name: full-off, state: stopped, masked: true}
  firewall:
    rules:
      - {name: web, ports: ["8080"], from: ["role:worker"]}
      - {name: never, ports: ["9999"], from: [any], drop: true}
      - {name: inside, ports: ["8081"], from: [vpn]}
    egress:
      - {name: web, ports: ["80", "443", "8080", "8099"], to: [any]}
`

const secretValue = "correct horse battery staple"

// TestAssumptions has machines with everything, proven; then takes one thing after the other away.
func TestAssumptions(t *testing.T) {
	const cidr, gateway = "10.214.12.0/24", "10.214.12.1"
	d := startDev(t, cidr, 18243)
	sums := serveDownloads(t, gateway)
	value := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(value, []byte(secretValue), 0o600); err != nil {
		t.Fatal(err)
	}
	d.pv("secret", "set", "token", "--from-file", value)
	apply := func(mode string) {
		t.Helper()
		d.pv("apply", "-f", d.manifest(fmt.Sprintf(everything, gateway, sums["archive.gpg"], sums["hello"], sums["app.tar.gz"], mode)), "--yes", "--no-wait")
	}
	apply("enforce")
	d.waitReady("full", 2)

	t.Run("every assumption is proven", func(t *testing.T) { d.columns(t) })
	t.Run("by the way that people take", func(t *testing.T) { d.fullUse(t) })
	t.Run("drift", func(t *testing.T) { d.fullDrift(t) })
	t.Run("audit", func(t *testing.T) {
		apply("audit")
		d.waitReady("full", 2)
		before := d.told("full-1", "file//etc/full/content")
		d.pv("exec", "full-1", "--", "sh", "-c", "echo spoiled >/etc/full/content")
		d.eventually("the difference is told", 3*time.Minute, func() error {
			if now := d.told("full-1", "file//etc/full/content"); now <= before {
				return fmt.Errorf("%d events, %d before", now, before)
			}
			return nil
		})
		if got := d.pv("exec", "full-1", "--", "cat", "/etc/full/content"); got != "spoiled\n" {
			t.Errorf("audit mode changed the file: %q", got)
		}
		out, err := d.try("verify", "full")
		if err == nil || !strings.Contains(out, "FAIL full-1 files") || !strings.Contains(out, "audit mode") {
			t.Errorf("verify in audit mode: %v\n%s", err, out)
		}
		apply("enforce")
		d.eventually("enforced again, it is repaired", 3*time.Minute, func() error {
			got, err := d.try("exec", "full-1", "--", "cat", "/etc/full/content")
			if err != nil || got != "as desired\n" {
				return fmt.Errorf("%q %w", got, err)
			}
			return nil
		})
	})
	if all := d.pv("events", "--limit", "1000", "-o", "json"); strings.Contains(all, secretValue) {
		t.Error("an event tells the secret")
	}
}

// serveDownloads serves what the pool fetches at the machines' gateway, and returns the hashes by name.
func serveDownloads(t *testing.T, gateway string) map[string]string {
	t.Helper()
	key, err := os.ReadFile("/usr/share/keyrings/debian-archive-keyring.gpg")
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	packed := gzip.NewWriter(&archive)
	w := tar.NewWriter(packed)
	for name, content := range map[string]string{"app-1/bin/app": "#!/bin/sh\necho app\n", "app-1/README": "read me\n"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"archive.gpg": key, "hello": []byte("#!/bin/sh\necho hello\n"), "app.tar.gz": archive.Bytes()}
	mux, sums := http.NewServeMux(), map[string]string{}
	for name, content := range files {
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(content))
		mux.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
		})
	}
	l, err := net.Listen("tcp", gateway+":8099")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Errorf("the test's server: %v", err)
		}
	})
	return sums
}

// columns checks that every column that the pool asks for is there and proven, and no other.
func (d *dev) columns(t *testing.T) {
	d.proven("full")
	var matrix struct {
		Proofs []struct{ Machine, Assumption, State string }
	}
	if err := json.Unmarshal([]byte(d.pv("verify", "full", "-o", "json")), &matrix); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range matrix.Proofs {
		got = append(got, p.Assumption)
	}
	slices.Sort(got)
	want := []string{
		"clock", "dns.forward", "dns.reverse", "downloads", "files", "firewall", "firewall.egress", "hadoop.address", "hadoop.clock", "hadoop.fqdn",
		"hadoop.getent", "hadoop.loopback", "hadoop.ptr", "hostname", "locale", "network", "os", "packages", "peer.dns", "peer.firewall", "repositories",
		"resolver", "services", "ssh", "sysctl", "timezone", "users", "vpn", "vpn.peer",
	}
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("columns %v, want %v", got, want)
	}
}

// fullUse looks at the machines as their users do.
func (d *dev) fullUse(t *testing.T) {
	domain := d.settings()["DOMAIN"]
	for _, c := range []struct{ command, want string }{
		{"hello; /opt/app/bin/app", "hello\napp\n"},
		{"cat /etc/full/template", "full-1." + domain + " of 2\n"},
		{"cat /etc/full/secret; stat -c %a /etc/full/secret", secretValue + "600\n"},
		{"readlink /etc/full/link; stat -c %a /etc/full", "content\n750\n"},
		{"id -nG ada; getent group crew", "ada crew\ncrew:x:4321:ada\n"},
		{"runuser -u ada -- sudo -n /usr/bin/id -un; runuser -u ada -- sudo -n /bin/true || echo denied", "root\ndenied\n"},
		{"apt-mark showhold", "tree\n"},
		{"date +%Z | tr S _ | cut -c1-2", "CE\n"},
		{"systemctl is-active full; systemctl is-enabled full-off", "active\nmasked\n"},
		{"sshd -T | grep -E '^(maxauthtries|passwordauthentication) ' | sort", "maxauthtries 3\npasswordauthentication no\n"},
	} {
		if got := d.pv("exec", "full-1", "--", "sh", "-c", "{ "+c.command+"; } 2>/dev/null; true"); got != c.want {
			t.Errorf("%s: %q, want %q", c.command, got, c.want)
		}
	}
	// Nobody gave a key: the cluster's authority signs for a while, and knows the machine's keys.
	if got := d.pv("ssh", "ops@full-2", "--", "hostname -f; sudo -n id -un"); got != "full-2."+domain+"\nroot\n" {
		t.Errorf("ssh by certificate: %q", got)
	}
	other := d.bySlot("full")["full-2"].Status.Address
	for port, reached := range map[string]bool{"7446": true, "7447": false, "9999": false, "22": false} {
		_, err := d.try("exec", "full-1", "--", "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/"+other+"/"+port)
		if (err == nil) != reached {
			t.Errorf("full-1 to port %s of full-2: %v, want reached %v", port, err, reached)
		}
	}
}

// told counts the events about a resource of a machine.
func (d *dev) told(slot, resource string) int {
	d.t.Helper()
	n := 0
	for _, e := range d.events(slot) {
		if strings.Contains(e, resource) {
			n++
		}
	}
	return n
}

// fullDrift takes one thing after the other away: each is repaired and told.
func (d *dev) fullDrift(t *testing.T) {
	for _, c := range []struct {
		// resource is how events begin to name it; spoil is done on the machine; then want is what look prints.
		resource, spoil, look, want string
	}{
		{"file//etc/full/content", "echo spoiled >/etc/full/content", "cat /etc/full/content", "as desired\n"},
		{"file//etc/full/secret", "echo guessed >/etc/full/secret", "cat /etc/full/secret", secretValue},
		{"file//etc/full/link", "ln -sfn /tmp /etc/full/link", "readlink /etc/full/link", "content\n"},
		{"file//etc/full", "chmod 777 /etc/full", "stat -c %a /etc/full", "750\n"},
		{"file//etc/full/none", "touch /etc/full/none", "ls /etc/full/none 2>/dev/null || echo gone", "gone\n"},
		{"download//usr/local/bin/hello", "echo exit 1 >/usr/local/bin/hello", "hello", "hello\n"},
		{"download//opt/app", "rm -r /opt/app", "/opt/app/bin/app", "app\n"},
		{"user/ada", "rm /home/ada/.ssh/authorized_keys", "wc -l </home/ada/.ssh/authorized_keys", "1\n"},
		{"user/ada", "gpasswd -d ada crew", "id -nG ada", "ada crew\n"},
		{"package/", "apt-mark unhold tree; dpkg --remove tree", "dpkg-query -W -f '${db:Status-Want} ${db:Status-Status}' tree", "hold installed"},
		{"hosts/", "echo 127.0.1.1 $(hostname -f) >>/etc/hosts", "grep -c 127.0.1.1 /etc/hosts", "0\n"},
		{"sshd/", "rm /etc/ssh/sshd_config.d/10-provisionr.conf", "sshd -T | grep '^passwordauthentication'", "passwordauthentication no\n"},
		{"firewall/", "nft flush ruleset", "nft list chain inet provisionr input | grep -q 8080 && echo there", "there\n"},
		{"service/full.service", "systemctl stop full", "systemctl is-active full", "active\n"},
		{"service/full.service", "rm /etc/systemd/system/full.service", "systemctl cat full | grep -c infinity", "1\n"},
		{"timezone/", "ln -sfn /usr/share/zoneinfo/UTC /etc/localtime", "readlink /etc/localtime | grep -c Berlin", "1\n"},
		{"sysctl/", "echo 128 >/proc/sys/net/core/somaxconn", "cat /proc/sys/net/core/somaxconn", "2048\n"},
		{"network/", "ip addr del 192.0.2.7/32 dev $(ip -o addr show to 192.0.2.7 | cut -d' ' -f2)", "ip -o addr show to 192.0.2.7 | wc -l", "1\n"},
		{"network/", "ip route del 198.51.100.0/24", "ip route show 198.51.100.0/24 | wc -l", "1\n"},
		{"vpn/", "ip link set pvn0 down", "ip -o link show up pvn0 | wc -l", "1\n"},
	} {
		t.Run(strings.ReplaceAll(c.resource+" "+c.spoil, "/", "_"), func(t *testing.T) {
			before := d.told("full-1", c.resource)
			d.pv("exec", "full-1", "--", "sh", "-c", c.spoil)
			d.eventually("it is as desired again", 3*time.Minute, func() error {
				// grep -c of nothing exits 1: what is printed counts.
				if got, err := d.try("exec", "full-1", "--", "sh", "-c", c.look+" || true"); got != c.want {
					return fmt.Errorf("%q %w", got, err)
				}
				return nil
			})
			d.eventually("an event tells it", time.Minute, func() error {
				if now := d.told("full-1", c.resource); now <= before {
					return fmt.Errorf("%d events about %s, %d before", now, c.resource, before)
				}
				return nil
			})
		})
	}
	d.waitReady("full", 2)
	d.proven("full")
}
