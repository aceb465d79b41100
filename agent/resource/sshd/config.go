package sshd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	mainPath   = "/etc/ssh/sshd_config"
	dropInPath = "/etc/ssh/sshd_config.d/10-provisionr.conf"
	// runDir must be there for sshd -t too; Debian's unit makes it only while sshd runs.
	runDir      = "/run/sshd"
	port        = 22
	testTimeout = 20 * time.Second
	// maxMain bounds what is read of sshd_config.
	maxMain = 1 << 20
)

// New returns the resources for sshd; none where the desired state does not speak of it.
func New(s *desired.State, h *host.Host) []converge.Resource {
	if s.Pool.GetSsh() == nil {
		return nil
	}
	return []converge.Resource{newCertificates(s, h), newConfig(s, h)}
}

type config struct {
	host         *host.Host
	settings     map[string]string
	password     bool
	certificates bool
	port         uint16
	// listens says that settings say where sshd listens.
	listens bool
	after   []string
	broken  error
}

func newConfig(s *desired.State, h *host.Host) *config {
	ssh := s.Pool.GetSsh()
	c := &config{
		host: h, settings: ssh.Settings, password: ssh.PasswordLogin, certificates: ssh.Certificates, port: port, after: []string{"package", "user"},
	}
	for _, f := range s.Pool.GetFiles() {
		if strings.HasPrefix(f.Path, sshDir+"/") {
			c.after = append(c.after, "file/"+f.Path)
		}
	}
	for name, value := range ssh.Settings {
		switch strings.ToLower(name) {
		case "match":
			c.broken = errs.New(errs.Invalid, "cannot configure sshd: Match is no setting, but the beginning of a block").
				WithHint("write a file of its own below /etc/ssh/sshd_config.d, after %s", dropInPath)
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				c.broken = errs.New(errs.Invalid, "cannot configure sshd: port %q", value)
			}
			c.port, c.listens = uint16(n), true
		case "listenaddress", "addressfamily":
			c.listens = true
		}
	}
	return c
}

// Name implements converge.Resource.
func (c *config) Name() string { return "sshd/config" }

// After implements converge.Ordered: the accounts and their keys come before the ways in that are closed, and what the
// manifest itself writes for sshd is tested together with ours.
func (c *config) After() []string { return c.after }

// Triggers implements converge.Triggered.
func (c *config) Triggers() []converge.Trigger {
	triggers := []converge.Trigger{{Kind: converge.OnFile, Name: dropInPath}, {Kind: converge.OnFile, Name: mainPath}}
	for _, name := range names {
		triggers = append(triggers, converge.Trigger{Kind: converge.OnUnit, Name: name + ".service"}, converge.Trigger{Kind: converge.OnUnit, Name: name + ".socket"})
	}
	return triggers
}

// Units implements converge.Looking: most have the first name.
func (c *config) Units() []string { return []string{names[0] + ".service", names[0] + ".socket"} }

// render returns the drop-in. What the manifest sets itself replaces what we would.
func (c *config) render() ([]byte, error) {
	type line struct{ word, value string }
	yesNo := map[bool]string{true: "yes", false: "no"}
	lines := []line{{"PasswordAuthentication", yesNo[c.password]}, {"KbdInteractiveAuthentication", "no"}}
	if c.certificates {
		keys, err := hostKeys(c.host)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line{"TrustedUserCAKeys", authoritiesPath}, line{"AuthorizedPrincipalsFile", principalsDir + "/%u"})
		// Their files may come later: sshd goes without one that is missing.
		for _, k := range keys {
			lines = append(lines, line{"HostCertificate", k.certPath()})
		}
	}
	set := make(map[string]bool)
	for word := range c.settings {
		set[strings.ToLower(word)] = true
	}
	var b strings.Builder
	b.WriteString("# Managed by provisionr-agent.\n")
	for _, l := range lines {
		if !set[strings.ToLower(l.word)] {
			b.WriteString(l.word + " " + l.value + "\n")
		}
	}
	for _, word := range slices.Sorted(maps.Keys(c.settings)) {
		b.WriteString(word + " " + c.settings[word] + "\n")
	}
	return []byte(b.String()), nil
}

// files are the drop-in, and the main file where it is there.
func (c *config) files() (*conffile.Set, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	content, err := c.render()
	if err != nil {
		return nil, err
	}
	files := []conffile.File{{Path: dropInPath, Content: content, Mode: 0o644}}
	now, err := conffile.Read(c.host, mainPath, maxMain)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !included(string(now)):
		main, err := conffile.Edited(c.host, mainPath, []byte(withInclude(string(now))))
		if err != nil {
			return nil, err
		}
		files = append(files, main)
	}
	return conffile.NewSet(c.host, "sshd", files...), nil
}

// Check implements converge.Resource.
func (c *config) Check(ctx context.Context) (converge.Diff, error) {
	set, err := c.files()
	if err != nil {
		return converge.Diff{}, err
	}
	text, err := set.Check()
	if err != nil {
		return converge.Diff{}, err
	}
	d, err := daemonOf(ctx, c.host)
	return converge.Diff{Text: textdiff.Join(text, d.state())}, err
}

// Apply implements converge.Resource. A configuration that sshd refuses is taken back at once.
func (c *config) Apply(ctx context.Context) error {
	set, err := c.files()
	if err != nil {
		return err
	}
	before, err := c.save()
	if err != nil {
		return err
	}
	d, err := daemonOf(ctx, c.host)
	if err != nil {
		return err
	}
	if d.service == "" && d.socket == "" {
		return errs.New(errs.Unavailable, "cannot configure sshd: it is not installed").WithHint("list openssh-server under packages")
	}
	reload := func() error {
		if err := c.test(ctx); err != nil {
			return errors.Join(err, c.putBack(before))
		}
		return d.reload(ctx, c.host, c.listens)
	}
	if err := set.Apply(reload); err != nil {
		return err
	}
	if d, err = daemonOf(ctx, c.host); err != nil {
		return err
	}
	return d.ensure(ctx, c.host)
}

func (c *config) test(ctx context.Context) error {
	if err := c.host.MkdirAll(runDir, 0o755); err != nil {
		return errs.New(errs.Internal, "cannot make %s: %w", runDir, err)
	}
	if _, err := command.Run(ctx, c.host, host.Command{Path: "sshd", Args: []string{"-t"}, Timeout: testTimeout}); err != nil {
		return errs.New(errs.Invalid, "cannot configure sshd: it refuses the configuration, which was taken back: %w", err).
			WithHint("correct ssh.settings in the manifest")
	}
	return nil
}

func (c *config) save() ([]converge.SavedFile, error) {
	var saved []converge.SavedFile
	for _, path := range []string{dropInPath, mainPath} {
		f, err := conffile.Save(c.host, path)
		if err != nil {
			return nil, err
		}
		saved = append(saved, f)
	}
	return saved, nil
}

func (c *config) putBack(saved []converge.SavedFile) error {
	var failed error
	for _, f := range saved {
		failed = errors.Join(failed, conffile.Restore(c.host, f))
	}
	return failed
}

// Guard implements converge.Guarded.
func (c *config) Guard() converge.Guard {
	content, err := c.render()
	if err != nil {
		content = []byte(err.Error())
	}
	sum := sha256.Sum256(content)
	return converge.Guard{Fingerprint: hex.EncodeToString(sum[:]), Inbound: []uint16{c.port}}
}

// Undo implements converge.Guarded.
func (c *config) Undo(ctx context.Context) (converge.Undo, error) {
	saved, err := c.save()
	if err != nil {
		return converge.Undo{}, err
	}
	d, err := daemonOf(ctx, c.host)
	if err != nil {
		return converge.Undo{}, err
	}
	return converge.Undo{Files: saved, Commands: d.commands()}, nil
}
