package proxy

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/fetch"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	aptPath     = "/etc/apt/apt.conf.d/90provisionr"
	dnfPath     = "/etc/dnf/dnf.conf"
	userPath    = "/etc/environment.d/90-provisionr-proxy.conf"
	profilePath = "/etc/profile.d/provisionr-proxy.sh"
	systemPath  = "/etc/systemd/system.conf.d/90-provisionr-proxy.conf"
	header      = "# Managed by provisionr-agent.\n"
	mark        = "# The next line is provisionr-agent's."
	maxDnf      = 1 << 20
)

// New returns the resource for the machine's proxy.
func New(s *desired.State, h *host.Host) []converge.Resource {
	m := s.Machine
	p := &proxy{host: h, url: m.GetHttpProxy(), dnf: m.GetOs().GetDistribution() == "fedora"}
	none := noProxy(m)
	vars := environment(p.url, none)
	everyone := m.GetProxyEnvironment() && p.url != ""
	p.set = conffile.NewSet(h, "proxy",
		p.file(aptPath, p.url != "" && !p.dnf, aptConf(p.url, none)),
		p.file(userPath, everyone, header+strings.Join(vars, "\n")+"\n"),
		p.file(profilePath, everyone, header+exports(vars)),
		p.file(systemPath, everyone, header+"[Manager]\nDefaultEnvironment="+quoted(vars)+"\n"),
	)
	return []converge.Resource{p}
}

// file does not show its content where the proxy's address has a password in it.
func (p *proxy) file(path string, present bool, content string) conffile.File {
	if !present {
		return conffile.File{Path: path, Absent: true}
	}
	f := conffile.File{Path: path, Content: []byte(content)}
	if shown := fetch.Redacted(p.url); shown != p.url {
		f.Secret = "proxy " + shown
	}
	return f
}

// noProxy is what is reached directly: the machine itself, the network's list, and the servers' own names.
func noProxy(m *agentv1.MachineComponent) []string {
	list := []string{"localhost", "127.0.0.1", "::1"}
	if m.GetCidr() != "" {
		list = append(list, m.GetCidr())
	}
	if m.GetDomain() != "" {
		list = append(list, "."+m.GetDomain())
	}
	for _, n := range m.GetNoProxy() {
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// environment in both spellings: programs disagree on which they read.
func environment(url string, none []string) []string {
	var vars []string
	for _, v := range [][2]string{{"http_proxy", url}, {"https_proxy", url}, {"no_proxy", strings.Join(none, ",")}} {
		vars = append(vars, v[0]+"="+v[1], strings.ToUpper(v[0])+"="+v[1])
	}
	return vars
}

func exports(vars []string) string {
	var b strings.Builder
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		b.WriteString("export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'\n")
	}
	return b.String()
}

// quoted writes variables as systemd-system.conf(5) reads them; a percent sign begins a specifier there.
func quoted(vars []string) string {
	var parts []string
	for _, v := range vars {
		parts = append(parts, strconv.Quote(strings.ReplaceAll(v, "%", "%%")))
	}
	return strings.Join(parts, " ")
}

// aptConf sends all but what is to be reached directly through the proxy. Apt knows hosts there, no ranges or domains
// (apt-transport-http(1)).
func aptConf(url string, none []string) string {
	var b strings.Builder
	b.WriteString("// Managed by provisionr-agent.\nAcquire::http::Proxy " + strconv.Quote(url) + ";\n")
	for _, n := range none {
		if _, err := netip.ParseAddr(n); err != nil && strings.ContainsAny(n, "/*:") || strings.HasPrefix(n, ".") || n == "localhost" || n == "127.0.0.1" || n == "::1" {
			continue
		}
		b.WriteString("Acquire::http::Proxy::" + n + " \"DIRECT\";\n")
	}
	return b.String()
}

type proxy struct {
	host *host.Host
	url  string
	dnf  bool
	set  *conffile.Set
}

// Name implements converge.Resource.
func (p *proxy) Name() string { return "proxy/http" }

// After implements converge.Ordered.
func (p *proxy) After() []string { return nil }

// Triggers implements converge.Triggered.
func (p *proxy) Triggers() []converge.Trigger {
	var list []converge.Trigger
	for _, path := range []string{aptPath, userPath, profilePath, systemPath} {
		list = append(list, converge.Trigger{Kind: converge.OnFile, Name: path})
	}
	if p.dnf {
		list = append(list, converge.Trigger{Kind: converge.OnFile, Name: dnfPath})
	}
	return list
}

// Check implements converge.Resource.
func (p *proxy) Check(context.Context) (converge.Diff, error) {
	text, err := p.set.Check()
	if err != nil || !p.dnf {
		return converge.Diff{Text: text}, err
	}
	is, want, err := p.dnfConf()
	if err == nil && is != want {
		text = strings.TrimPrefix(text+"\n"+dnfPath+": the proxy differs\n+proxy="+fetch.Redacted(p.url), "\n")
	}
	return converge.Diff{Text: text}, err
}

// Apply implements converge.Resource. Systemd takes up its default environment when it is reloaded.
func (p *proxy) Apply(ctx context.Context) error {
	err := p.set.Apply(func() error { return p.host.Units.DaemonReload(ctx) })
	if err != nil || !p.dnf {
		return err
	}
	is, want, err := p.dnfConf()
	if err != nil || is == want {
		return err
	}
	f, err := conffile.Edited(p.host, dnfPath, []byte(want))
	if err != nil {
		return err
	}
	return conffile.Apply(p.host, &f)
}

// dnfConf returns dnf.conf as it is, and as it should be: with the proxy in a line below our mark in the section main.
func (p *proxy) dnfConf() (is, want string, err error) {
	content, err := conffile.Read(p.host, dnfPath, maxDnf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	is = string(content)
	var lines []string
	ours := false
	for line := range strings.Lines(is) {
		line = strings.TrimRight(line, "\n")
		switch {
		case ours:
			ours = false
		case line == mark:
			ours = true
		default:
			lines = append(lines, line)
		}
	}
	if p.url != "" {
		at := slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "[main]" })
		if at < 0 {
			lines, at = append([]string{"[main]"}, lines...), 0
		}
		lines = slices.Insert(lines, at+1, mark, "proxy="+p.url)
	}
	if len(lines) == 0 {
		return is, "", nil
	}
	return is, strings.Join(lines, "\n") + "\n", nil
}
