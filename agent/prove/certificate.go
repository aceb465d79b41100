package prove

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
)

// sshdDropIn is where the host's certificates are named.
const sshdDropIn = "/etc/ssh/sshd_config.d/10-provisionr.conf"

// hostCertificate is what counts of a certificate of OpenSSH (PROTOCOL.certkeys).
type hostCertificate struct {
	principals    []string
	after, before uint64
	// authority is the public key that signed it, in wire format; signed says that the signature is right, where it is ed25519.
	authority []byte
	signed    bool
}

// certified proves that sshd's keys are certified by the cluster, now and for the machine's name.
func (p *Prover) certified(s *desired.State) verdict {
	if !s.Pool.GetSsh().GetCertificates() || len(s.Machine.GetSshAuthorities()) == 0 {
		return nothing
	}
	expected := "sshd answers with a certificate of " + s.Machine.GetFqdn()
	const remedy = "the agent renews it while it has a session; see journalctl -u provisionr-agent"
	content, err := p.host.ReadFile(sshdDropIn)
	if err != nil {
		return failed(expected, "sshd names no certificate", repairs)
	}
	var files []string
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) == 2 && strings.EqualFold(fields[0], "HostCertificate") {
			files = append(files, fields[1])
		}
	}
	if len(files) == 0 {
		return failed(expected, "sshd names no certificate", remedy)
	}
	var wrong []string
	for _, file := range files {
		line, err := p.host.ReadFile(file)
		if err != nil {
			wrong = append(wrong, path.Base(file)+" is missing")
			continue
		}
		c, err := parseCertificate(line)
		if err != nil {
			wrong = append(wrong, path.Base(file)+" is no certificate of a host")
			continue
		}
		now := uint64(time.Now().Unix())
		switch {
		case now >= c.before:
			wrong = append(wrong, path.Base(file)+" has expired")
		case now < c.after:
			wrong = append(wrong, path.Base(file)+" is not valid yet")
		case !slices.Contains(c.principals, s.Machine.GetFqdn()):
			wrong = append(wrong, path.Base(file)+" is not for "+s.Machine.GetFqdn())
		case !c.signed || !slices.ContainsFunc(s.Machine.GetSshAuthorities(), func(a string) bool { return bytes.Equal(wire(a), c.authority) }):
			wrong = append(wrong, path.Base(file)+" is not signed by the cluster")
		}
	}
	if len(wrong) > 0 {
		return failed(expected, strings.Join(wrong, "; "), remedy)
	}
	return proven(expected, expected)
}

// wire is the key of a line of authorized_keys(5) or of a certificate's file.
func wire(line string) []byte {
	for _, field := range strings.Fields(line) {
		if key, err := base64.StdEncoding.DecodeString(field); err == nil && len(key) > 8 {
			return key
		}
	}
	return nil
}

var errNoCertificate = errors.New("cannot read certificate")

// keyFields is how many fields the public key itself has in a certificate of each type.
var keyFields = map[string]int{
	"ssh-ed25519-cert-v01@openssh.com": 1, "ssh-rsa-cert-v01@openssh.com": 2, "ecdsa-sha2-nistp256-cert-v01@openssh.com": 2,
	"ecdsa-sha2-nistp384-cert-v01@openssh.com": 2, "ecdsa-sha2-nistp521-cert-v01@openssh.com": 2,
}

// parseCertificate reads a line of a file named ...-cert.pub. Only certificates of hosts are taken.
func parseCertificate(line []byte) (*hostCertificate, error) {
	whole := wire(string(line))
	r := wireReader{rest: whole}
	kind := string(r.text())
	n, known := keyFields[kind]
	if !known {
		return nil, fmt.Errorf("%w of type %q", errNoCertificate, kind)
	}
	for range n + 1 { // the nonce and the key
		r.text()
	}
	r.take(8) // the serial number
	typ := r.take(4)
	r.text() // its id
	c := &hostCertificate{}
	for list := (wireReader{rest: r.text()}); len(list.rest) > 0 && !list.short; {
		c.principals = append(c.principals, string(list.text()))
	}
	after, before := r.take(8), r.take(8)
	r.text() // critical options
	r.text() // extensions
	r.text() // reserved
	c.authority = r.text()
	signed := whole[:len(whole)-len(r.rest)]
	signature := wireReader{rest: r.text()}
	if r.short || binary.BigEndian.Uint32(typ) != 2 {
		return nil, errNoCertificate
	}
	c.after, c.before = binary.BigEndian.Uint64(after), binary.BigEndian.Uint64(before)
	key := wireReader{rest: c.authority}
	algorithm := string(key.text())
	public := key.text()
	format, raw := string(signature.text()), signature.text()
	c.signed = algorithm != "ssh-ed25519" || format == algorithm && len(public) == ed25519.PublicKeySize && ed25519.Verify(public, signed, raw)
	return c, nil
}

// wireReader reads the data types of RFC 4251 section 5. After the end it gives zeroes and is short.
type wireReader struct {
	rest  []byte
	short bool
}

func (r *wireReader) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.rest, r.short = nil, true
		return make([]byte, min(max(n, 0), 8))
	}
	var b []byte
	b, r.rest = r.rest[:n], r.rest[n:]
	return b
}

func (r *wireReader) text() []byte { return r.take(int(binary.BigEndian.Uint32(r.take(4)))) }
