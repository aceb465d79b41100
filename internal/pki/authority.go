package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// Lifetimes of certificates. Every one is back-dated by [Backdate].
const (
	AgentTTL     = 24 * time.Hour
	ServerTTL    = 30 * 24 * time.Hour
	UserTTL      = 90 * 24 * time.Hour
	MaxUserTTL   = 365 * 24 * time.Hour
	AuthorityTTL = 10 * 365 * 24 * time.Hour
	Backdate     = time.Hour
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// Leaf is what a certificate is issued for.
type Leaf struct {
	ID ID
	// Key is the subject's public key, P-256.
	Key crypto.PublicKey
	// TTL counts from now; it is cut to the authority's own end. Zero or less is refused.
	TTL time.Duration
	// Hosts are DNS names or addresses for clients that check host names. Only servers may have them.
	Hosts []string
}

// NewAuthority makes a key and a self-signed certificate for it that may sign leaves of the cluster only.
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The year keeps two authorities apart for people; machines tell them apart by key.
		Subject:               pkix.Name{CommonName: "Provisionr " + cluster + " " + now.UTC().Format("2006-01-02")},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(AuthorityTTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &Authority{Cert: cert, Key: key}, nil
}

// Issue signs a certificate that is valid from [Backdate] before now.
func (a *Authority) Issue(l Leaf, now time.Time) (*x509.Certificate, error) {
	if !l.ID.Valid() {
		return nil, errs.New(errs.Invalid, "cannot issue certificate: %q is not an identity", l.ID)
	}
	if l.TTL <= 0 {
		return nil, errs.New(errs.Invalid, "cannot issue certificate for %s: no lifetime", l.ID)
	}
	if len(l.Hosts) > 0 && l.ID.Kind != Server {
		return nil, errs.New(errs.Invalid, "cannot issue certificate for %s: only servers have host names", l.ID)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: l.ID.Name, OrganizationalUnit: []string{string(l.ID.Kind)}},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(l.TTL),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{l.ID.URI()},
	}
	if template.NotAfter.After(a.Cert.NotAfter) {
		template.NotAfter = a.Cert.NotAfter
	}
	if l.ID.Kind == Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range l.Hosts {
		if addr, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return sign(template, a.Cert, l.Key, a.Key)
}

// RenewAt is when a certificate has half of its life behind it.
func RenewAt(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2)
}

// Serial returns a certificate's serial number in lower case hexadecimal.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot parse own certificate: %w", err)
	}
	return cert, nil
}

// newSerial returns 127 random bits: positive, and at most 20 octets (RFC 5280, section 4.1.2.2).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}
