package ca

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/provisionr/provisionr/internal/errs"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// purposeSSH is the purpose of an authority that signs keys for ssh.
const purposeSSH = "ssh"

// sshLevel is the feature level that has authorities for ssh.
const sshLevel = 3

// sshBackdated is how long before its making a certificate begins to hold: clocks differ.
const sshBackdated = 5 * time.Minute

// SSHCertificate is a signed public key.
type SSHCertificate struct {
	// Line is the content of a file named ...-cert.pub, without its line end.
	Line       string
	Serial     uint64
	Principals []string
	Expires    time.Time
}

// EnsureSSHAuthority returns the command that makes the cluster's authority for ssh, or nil where there is one already, or the
// feature level has none yet. Of two that are proposed at a time the second is refused.
func (a *CA) EnsureSSHAuthority() (*raftlogv1.Command, error) {
	records := a.config.State()
	if records.Cluster().GetFeatureLevel() < sshLevel {
		return nil, nil
	}
	for row := range records.Authorities() {
		if row.GetPurpose() == purposeSSH && row.GetState() == Active {
			return nil, nil
		}
	}
	ring, _, err := a.open(records)
	if err != nil {
		return nil, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make key of authority: %w", err)
	}
	wire, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode key of authority: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot encode key of authority: %w", err)
	}
	sum := sha256.Sum256(wire.Marshal())
	id := hex.EncodeToString(sum[:])
	sealed, err := ring.Seal(purposeAuthority+id, der)
	if err != nil {
		return nil, err
	}
	return putAuthority(&raftlogv1.Authority{Id: id, State: Active, Certificate: wire.Marshal(), SealedKey: sealed, Purpose: purposeSSH}), nil
}

// KeepSSH makes the authority for ssh as soon as there can be one, and again if it should be retired, until ctx ends. It is for
// the leader. Changed returns a channel that is closed when authorities or the cluster change.
func (a *CA) KeepSSH(ctx context.Context, changed func() <-chan struct{}, put func(context.Context, *raftlogv1.Command) error) error {
	for {
		wake := changed()
		command, err := a.EnsureSSHAuthority()
		if err == nil && command != nil {
			err = put(ctx, command)
		}
		var again <-chan time.Time
		if err != nil && !errs.Is(err, errs.Conflict) {
			again = time.After(renewRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-again:
		}
	}
}

// SSHAuthorities returns the public keys that certify hosts and users, in the form of authorized_keys(5) without line ends: the
// one that signs first. There is none below feature level 3.
func (a *CA) SSHAuthorities() []string {
	var signs, trusted []string
	for row := range a.config.State().Authorities() {
		if row.GetPurpose() != purposeSSH || row.GetState() == Retired {
			continue
		}
		key, err := ssh.ParsePublicKey(row.GetCertificate())
		if err != nil {
			continue // one broken row must not take the others' trust away
		}
		if row.GetState() == Active {
			signs = append(signs, keyLine(key))
		} else {
			trusted = append(trusted, keyLine(key))
		}
	}
	return append(signs, trusted...)
}

// SignHost certifies a host key, in the form of authorized_keys(5), for the names and addresses that the host is known by, and
// returns the line of a file named ...-cert.pub. The error of a key that cannot be certified is of kind Invalid.
func (a *CA) SignHost(publicKey []byte, principals []string, ttl time.Duration) ([]byte, error) {
	// A certificate without principals would be good for every name.
	if len(principals) == 0 || slices.Contains(principals, "") {
		return nil, errs.New(errs.Internal, "cannot certify a host key for no name")
	}
	signed, err := a.signSSH(&ssh.Certificate{CertType: ssh.HostCert, KeyId: principals[0], ValidPrincipals: principals}, string(publicKey), ttl)
	if err != nil {
		return nil, err
	}
	return []byte(signed.Line), nil
}

// SignUser certifies a public key, in the form of authorized_keys(5), for logins as any of the principals. The key id is what
// sshd writes into its log.
func (a *CA) SignUser(publicKey, keyID string, principals []string, ttl time.Duration) (*SSHCertificate, error) {
	// A certificate without principals would be good for every account.
	if len(principals) == 0 || slices.Contains(principals, "") {
		return nil, errs.New(errs.Internal, "cannot certify a key for nobody")
	}
	return a.signSSH(&ssh.Certificate{
		CertType: ssh.UserCert, KeyId: keyID, ValidPrincipals: principals,
		Permissions: ssh.Permissions{Extensions: map[string]string{
			"permit-pty": "", "permit-agent-forwarding": "", "permit-port-forwarding": "", "permit-user-rc": "",
		}},
	}, publicKey, ttl)
}

func (a *CA) signSSH(cert *ssh.Certificate, publicKey string, ttl time.Duration) (*SSHCertificate, error) {
	key, err := parseSSHKey(publicKey)
	if err != nil {
		return nil, err
	}
	signer, err := a.sshSigner()
	if err != nil {
		return nil, err
	}
	now := a.config.Now()
	expires := now.Add(ttl).Truncate(time.Second)
	var serial [8]byte
	rand.Read(serial[:])
	cert.Key, cert.Serial = key, binary.BigEndian.Uint64(serial[:])
	cert.ValidAfter, cert.ValidBefore = uint64(now.Add(-sshBackdated).Unix()), uint64(expires.Unix())
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return nil, errs.New(errs.Internal, "cannot sign key: %w", err)
	}
	return &SSHCertificate{Line: keyLine(cert), Serial: cert.Serial, Principals: cert.ValidPrincipals, Expires: expires}, nil
}

// parseSSHKey reads a public key that may be certified: of every type that sshd takes but DSA, which it takes no more, and RSA
// of less than 2048 bits.
func parseSSHKey(line string) (ssh.PublicKey, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(options) > 0 || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errs.New(errs.Invalid, "cannot certify key: it is not one public key in the form of authorized_keys(5)").
			WithHint("give the content of a file named .pub, as ~/.ssh/id_ed25519.pub")
	}
	switch key.Type() {
	case ssh.KeyAlgoRSA:
		if bits := rsaBits(key); bits < 2048 {
			return nil, errs.New(errs.Invalid, "cannot certify an RSA key of %d bits: the least is 2048", bits).WithHint("make another: ssh-keygen -t ed25519")
		}
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
	default:
		return nil, errs.New(errs.Invalid, "cannot certify keys of type %s", key.Type()).WithHint("make another: ssh-keygen -t ed25519")
	}
	return key, nil
}

func rsaBits(key ssh.PublicKey) int {
	k, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return 0
	}
	public, ok := k.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return 0
	}
	return public.N.BitLen()
}

// sshSigner opens the active authority for ssh.
func (a *CA) sshSigner() (ssh.Signer, error) {
	records := a.config.State()
	for row := range records.Authorities() {
		if row.GetPurpose() != purposeSSH || row.GetState() != Active {
			continue
		}
		ring, _, err := a.open(records)
		if err != nil {
			return nil, err
		}
		der, err := ring.Open(purposeAuthority+row.GetId(), row.GetSealedKey())
		if err != nil {
			return nil, err
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot read key of authority %s", row.GetId())
		}
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot use key of authority %s: %w", row.GetId(), err)
		}
		return signer, nil
	}
	return nil, errs.New(errs.Unavailable, "cannot sign keys for ssh: the cluster has no authority for it yet").
		WithHint("it is made as soon as all servers have this version")
}

func keyLine(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}
