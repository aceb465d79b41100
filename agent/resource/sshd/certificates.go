package sshd

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	sshDir          = "/etc/ssh"
	authoritiesPath = sshDir + "/provisionr_authorities.pub"
	principalsDir   = sshDir + "/provisionr_principals"
	issuedPath      = conffile.StateDir + "/ssh-certificates.json"
	// maxKeys bounds the host keys that are certified: one of each type is usual.
	maxKeys = 8
	maxKey  = 64 << 10
)

// hostKey is a public key of sshd.
type hostKey struct {
	// name is the file's without .pub, as ssh_host_ed25519_key; line is type and key.
	name, line string
}

func (k hostKey) certPath() string { return sshDir + "/" + k.name + "-cert.pub" }

// hostKeys returns the machine's host keys by name. Those that nobody may use any more (DSA) are left out.
func hostKeys(h *host.Host) ([]hostKey, error) {
	files, err := conffile.List(h, sshDir, "ssh_host_*_key.pub")
	if err != nil {
		return nil, err
	}
	var keys []hostKey
	for _, file := range files {
		b, err := conffile.Read(h, sshDir+"/"+file, maxKey)
		if err != nil {
			return nil, err
		}
		f := strings.Fields(string(b))
		if len(f) >= 2 && (f[0] == "ssh-ed25519" || f[0] == "ssh-rsa" || strings.HasPrefix(f[0], "ecdsa-sha2-")) && len(keys) < maxKeys {
			keys = append(keys, hostKey{strings.TrimSuffix(file, ".pub"), f[0] + " " + f[1]})
		}
	}
	return keys, nil
}

// issued is what is remembered of host certificates.
type issued struct {
	// Subject is what they were issued for: names of the machine, and the authorities of that time.
	Subject string    `json:"subject"`
	RenewAt time.Time `json:"renew_at"`
	// Certs are lines by the line of the key.
	Certs map[string]string `json:"certs"`
}

type certificates struct {
	host        *host.Host
	enabled     bool
	certifier   desired.HostCertifier
	authorities []string
	users       []*agentv1.User
	subject     string
}

func newCertificates(s *desired.State, h *host.Host) *certificates {
	m := s.Machine
	return &certificates{
		host: h, enabled: s.Pool.GetSsh().GetCertificates(), certifier: s.HostCertifier, authorities: m.GetSshAuthorities(), users: s.Pool.GetUsers(),
		subject: strings.Join(append([]string{m.GetName(), m.GetFqdn(), m.GetAddress()}, m.GetSshAuthorities()...), "\n"),
	}
}

// Name implements converge.Resource.
func (c *certificates) Name() string { return "sshd/certificates" }

// After implements converge.Ordered: the package makes the host keys.
func (c *certificates) After() []string { return []string{"package"} }

// Triggers implements converge.Triggered.
func (c *certificates) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: authoritiesPath}, {Kind: converge.OnFile, Name: principalsDir}, {Kind: converge.OnFile, Name: sshDir}}
}

// load returns what is remembered. What cannot be read counts as nothing: certificates are asked for again.
func (c *certificates) load() (*issued, error) {
	b, err := conffile.Read(c.host, issuedPath, 1<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	in := &issued{}
	if json.Unmarshal(b, in) != nil {
		in = &issued{}
	}
	return in, nil
}

// due says why certificates are to be asked for, or "".
func (c *certificates) due(in *issued, keys []hostKey) string {
	switch {
	case !c.enabled, len(keys) == 0, c.certifier == nil, len(c.authorities) == 0:
		return ""
	case slices.ContainsFunc(keys, func(k hostKey) bool { return in.Certs[k.line] == "" }):
		return "a host key has no certificate"
	case in.Subject != c.subject:
		return "host certificates are of other names or of another authority"
	case !time.Now().Before(in.RenewAt):
		return "host certificates are due for renewal"
	}
	return ""
}

// files are all that is wanted, from what is remembered.
func (c *certificates) files(in *issued, keys []hostKey) (*conffile.Set, error) {
	files := []conffile.File{{Path: authoritiesPath, Content: []byte(strings.Join(c.authorities, "\n") + "\n"), Absent: !c.enabled || len(c.authorities) == 0}}
	for _, k := range keys {
		if cert := in.Certs[k.line]; cert != "" {
			files = append(files, conffile.File{Path: k.certPath(), Content: []byte(cert + "\n"), Absent: !c.enabled})
		}
	}
	listed := make(map[string]bool)
	for _, u := range c.users {
		if c.enabled && !u.Absent {
			listed[u.Name] = true
			files = append(files, conffile.File{Path: principalsDir + "/" + u.Name, Content: principals(u)})
		}
	}
	// No name of a certificate may become an account that is no longer listed.
	present, err := conffile.List(c.host, principalsDir, "*")
	if err != nil {
		return nil, err
	}
	for _, name := range present {
		if !listed[name] {
			files = append(files, conffile.File{Path: principalsDir + "/" + name, Absent: true})
		}
	}
	return conffile.NewSet(c.host, "sshd-certificates", files...), nil
}

// principals returns which names of user certificates may become an account: its own, and the roles that it stands for.
func principals(u *agentv1.User) []byte {
	names := u.Name + "\nrole:admin\n"
	if !u.Admin {
		names += "role:operator\n"
	}
	return []byte(names)
}

// Check implements converge.Resource.
func (c *certificates) Check(context.Context) (converge.Diff, error) {
	in, keys, err := c.present()
	if err != nil {
		return converge.Diff{}, err
	}
	set, err := c.files(in, keys)
	if err != nil {
		return converge.Diff{}, err
	}
	text, err := set.Check()
	return converge.Diff{Text: textdiff.Join(c.due(in, keys), text)}, err
}

func (c *certificates) present() (*issued, []hostKey, error) {
	in, err := c.load()
	if err != nil {
		return nil, nil, err
	}
	keys, err := hostKeys(c.host)
	return in, keys, err
}

// Apply implements converge.Resource. Where no server can be asked for certificates, the rest is done nevertheless and the
// old ones stay.
func (c *certificates) Apply(ctx context.Context) error {
	in, keys, err := c.present()
	if err != nil {
		return err
	}
	var asked error
	if c.due(in, keys) != "" {
		fresh, err := c.ask(ctx, keys)
		if err != nil {
			asked = errs.New(errs.KindOf(err), "cannot certify the host keys: %w", err)
		} else {
			in = fresh
		}
	}
	set, err := c.files(in, keys)
	if err != nil {
		return errors.Join(asked, err)
	}
	err = set.Apply(func() error {
		d, err := daemonOf(ctx, c.host)
		if err != nil || d.service == "" || !d.running {
			// One that starts later reads them then.
			return err
		}
		return d.reload(ctx, c.host, false)
	})
	if asked != nil && err == nil {
		return asked
	}
	return errors.Join(asked, err)
}

// ask has the keys certified, and remembers the answer before it is used.
func (c *certificates) ask(ctx context.Context, keys []hostKey) (*issued, error) {
	var lines []string
	for _, k := range keys {
		lines = append(lines, k.line)
	}
	certs, renewAt, err := c.certifier.CertifyHost(ctx, lines)
	if err != nil {
		return nil, err
	}
	if len(certs) != len(lines) {
		return nil, errs.New(errs.Internal, "%d certificates for %d keys", len(certs), len(lines))
	}
	in := &issued{Subject: c.subject, RenewAt: renewAt, Certs: make(map[string]string)}
	for i, cert := range certs {
		cert = strings.TrimSpace(cert)
		if cert == "" || strings.ContainsAny(cert, "\n\r") {
			return nil, errs.New(errs.Internal, "a certificate is not one line")
		}
		in.Certs[lines[i]] = cert
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	return in, conffile.Apply(c.host, &conffile.File{Path: issuedPath, Content: append(b, '\n'), Mode: 0o600})
}
