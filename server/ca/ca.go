package ca

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"iter"
	"sync"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/seal"
)

// The slots of an authority.
const (
	Prepared = "prepared"
	Active   = "active"
	Retired  = "retired"
)

// purposeAuthority and purposeTokens bind sealed values to their place in the state.
const (
	purposeAuthority = "authority "
	purposeTokens    = "token key"
)

// Records is what the authority reads of the state. Rows are never changed.
type Records interface {
	Cluster() *provisionrv1.Cluster
	SealedKey() *raftlogv1.SealedKey
	Authorities() iter.Seq[*raftlogv1.Authority]
	Members() iter.Seq[*provisionrv1.Member]
	Secrets() iter.Seq[*provisionrv1.Secret]
	ZoneKeys() iter.Seq[*provisionrv1.ZoneKey]
}

// Config of a CA.
type Config struct {
	// State returns the newest records. Required.
	State func() Records
	// Member is this member's name. Required.
	Member string
	// Key unwraps the data key for this member. Required.
	Key *seal.MemberKey
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// CA signs certificates and makes tokens. Its methods may be called concurrently.
type CA struct {
	config Config

	mu sync.Mutex
	// opened is the row that ring and tokenKey came from: unwrapping costs a curve operation, so it is done once a row.
	opened   *raftlogv1.SealedKey
	ring     *seal.Ring
	tokenKey []byte
	// parsed remembers certificates by the authority's id, which is the hash of their key, and certificate bytes.
	parsed map[string]*x509.Certificate
}

// New makes a CA. It reads nothing yet: the state may still be empty.
func New(c Config) (*CA, error) {
	if c.State == nil || c.Member == "" || c.Key == nil {
		return nil, errs.New(errs.Internal, "cannot make authority: state, member and key are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &CA{config: c, parsed: make(map[string]*x509.Certificate)}, nil
}

// Issue signs a certificate and returns its chain in PEM. A server's chain includes the root, for clients that pin it.
func (a *CA) Issue(id pki.ID, key crypto.PublicKey, ttl time.Duration) ([]byte, error) {
	return a.issue(pki.Leaf{ID: id, Key: key, TTL: ttl})
}

// IssueServer signs a member's certificate with host names and addresses for clients that check those, as browsers do.
func (a *CA) IssueServer(member string, key crypto.PublicKey, hosts []string) ([]byte, error) {
	cluster := a.config.State().Cluster()
	if cluster == nil {
		return nil, notInitialised()
	}
	id := pki.ID{Cluster: cluster.GetId(), Kind: pki.Server, Name: member}
	return a.issue(pki.Leaf{ID: id, Key: key, TTL: pki.ServerTTL, Hosts: hosts})
}

func (a *CA) issue(leaf pki.Leaf) ([]byte, error) {
	records := a.config.State()
	if cluster := records.Cluster(); cluster == nil || cluster.GetId() != leaf.ID.Cluster {
		return nil, errs.New(errs.Invalid, "cannot issue certificate for %s: it is of another cluster", leaf.ID)
	}
	signer, err := a.signer(records)
	if err != nil {
		return nil, err
	}
	cert, err := signer.Issue(leaf, a.config.Now())
	if err != nil {
		return nil, err
	}
	return chainPEM(leaf.ID.Kind, cert, signer.Cert), nil
}

func chainPEM(kind pki.Kind, cert, root *x509.Certificate) []byte {
	if kind == pki.Server {
		return pki.EncodeCerts(cert, root)
	}
	return pki.EncodeCerts(cert)
}

// Roots returns the certificates of all authorities that are trusted now. A row that cannot be parsed is left out:
// one broken row must not take the others' trust away.
func (a *CA) Roots() []*x509.Certificate {
	var roots []*x509.Certificate
	for row := range a.config.State().Authorities() {
		if row.GetState() == Retired || row.GetPurpose() != "" {
			continue
		}
		if cert, err := a.parse(row); err == nil {
			roots = append(roots, cert)
		}
	}
	return roots
}

// RootsPEM returns Roots in PEM.
func (a *CA) RootsPEM() []byte { return pki.EncodeCerts(a.Roots()...) }

// Pins returns the pins of all trusted authorities.
func (a *CA) Pins() []string {
	var pins []string
	for _, root := range a.Roots() {
		pins = append(pins, pki.SPKIPin(root))
	}
	return pins
}

// signer opens the newest active authority.
func (a *CA) signer(records Records) (*pki.Authority, error) {
	row, cert, err := a.newestActive(records)
	if err != nil {
		return nil, err
	}
	ring, _, err := a.open(records)
	if err != nil {
		return nil, err
	}
	der, err := ring.Open(purposeAuthority+row.GetId(), row.GetSealedKey())
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKeyDER(der)
	if err != nil {
		return nil, err
	}
	return &pki.Authority{Cert: cert, Key: key}, nil
}

func (a *CA) newestActive(records Records) (*raftlogv1.Authority, *x509.Certificate, error) {
	var row *raftlogv1.Authority
	var cert *x509.Certificate
	for r := range records.Authorities() {
		if r.GetState() != Active || r.GetPurpose() != "" {
			continue
		}
		c, err := a.parse(r)
		if err != nil {
			return nil, nil, err
		}
		if row == nil || c.NotBefore.After(cert.NotBefore) {
			row, cert = r, c
		}
	}
	if row == nil {
		return nil, nil, notInitialised()
	}
	return row, cert, nil
}

func notInitialised() *errs.Error {
	return errs.New(errs.Unavailable, "cannot sign certificates: the cluster has no active authority").
		WithHint("the cluster is not initialised yet, or this member has not caught up: try again")
}

func (a *CA) parse(row *raftlogv1.Authority) (*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := sha256.Sum256(row.GetCertificate())
	id := string(sum[:])
	if cert := a.parsed[id]; cert != nil {
		return cert, nil
	}
	cert, err := x509.ParseCertificate(row.GetCertificate())
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot parse certificate of authority %s: %w", row.GetId(), err)
	}
	if len(a.parsed) >= maxAuthorities {
		clear(a.parsed)
	}
	a.parsed[id] = cert
	return cert, nil
}

// maxAuthorities bounds the cache of parsed certificates; a cluster has one to three.
const maxAuthorities = 64

// open returns the data keys and the key of tokens as of the records.
func (a *CA) open(records Records) (*seal.Ring, []byte, error) {
	row := records.SealedKey()
	cluster := records.Cluster()
	if row == nil || cluster == nil {
		return nil, nil, notInitialised()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.opened == row {
		return a.ring, a.tokenKey, nil
	}
	wrapped := row.GetWrapped()[a.config.Member]
	if wrapped == nil {
		return nil, nil, errs.New(errs.Unavailable, "cannot open the cluster's secrets: the data key is not wrapped for member %q", a.config.Member).
			WithHint("this member was removed, its join is not complete yet, or a snapshot from before it was restored: then another member wraps the key within seconds")
	}
	ring, err := a.config.Key.Unwrap(wrapped, cluster.GetId())
	if err != nil {
		return nil, nil, err
	}
	tokenKey, err := ring.Open(purposeTokens, row.GetSealedTokenKey())
	if err != nil {
		return nil, nil, err
	}
	a.opened, a.ring, a.tokenKey = row, ring, tokenKey
	return ring, tokenKey, nil
}

// authorityID is the hexadecimal SHA-256 of the public key.
func authorityID(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
