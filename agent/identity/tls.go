package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
)

const (
	// offsetChange is how much the clock's offset must change to be written to disk again.
	offsetChange = 10 * time.Second
	// minRenewal is the shortest wait before a certificate is renewed.
	minRenewal = time.Second
)

// JoinTLS is for Join alone: no client certificate, the authority's key pinned, time not looked at.
func (i *Identity) JoinTLS() (*tls.Config, error) {
	return pki.ClientTLS(pki.ClientConfig{Pins: i.bootstrap.CAPins, Cluster: i.bootstrap.ClusterID})
}

// TLS is for all calls but Join: mutual, with the roots of the trust bundle.
func (i *Identity) TLS() (*tls.Config, error) {
	i.mu.Lock()
	sessions := i.sessions
	i.mu.Unlock()
	c := pki.ClientConfig{
		Certificate: i.store.Certificate, Roots: i.store.Roots, Cluster: i.id.Cluster, Sessions: sessions, Now: i.clock.now,
	}
	config, err := pki.ClientTLS(c)
	if err != nil {
		return nil, err
	}
	config.VerifyConnection = func(cs tls.ConnectionState) error { return i.verify(cs, c) }
	return config, nil
}

// verify accepts a server that is right by any of the clock's candidates. Only an error about time leads to the next one.
func (i *Identity) verify(cs tls.ConnectionState, c pki.ClientConfig) error {
	var first error
	for _, at := range i.clock.candidates() {
		c.Now = func() time.Time { return at }
		config, err := pki.ClientTLS(c)
		if err != nil {
			return err
		}
		if err = config.VerifyConnection(cs); err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
		var invalid x509.CertificateInvalidError
		if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
			break
		}
	}
	return first
}

// Observe notes a server's time, heard in answer to what was sent at that time, for later handshakes and for Skew.
func (i *Identity) Observe(server, sent time.Time) {
	received := time.Now()
	i.clock.observe(server, sent, received)
	offset := -i.clock.skew()
	i.mu.Lock()
	defer i.mu.Unlock()
	if (offset - i.state.ClockOffset).Abs() < offsetChange {
		return
	}
	next := i.state
	if next.ClockOffset = offset; offset.Abs() < offsetChange {
		next.ClockOffset = 0
	}
	if err := i.save(next); err != nil {
		i.config.Logger.Warn("cannot note the clock's offset", "error", err)
	}
}

// Skew is how far the machine's clock is ahead of the servers', negative if behind; zero while unknown.
func (i *Identity) Skew() time.Duration { return i.clock.skew() }

// Expired reports whether the certificate has ended by the servers' time, as far as it is known.
func (i *Identity) Expired() bool {
	cert, err := i.store.Certificate()
	return err == nil && pki.Expired(cert.Leaf, i.clock.now())
}

// RenewIn is the wait until the certificate is to be renewed: half of its life, and up to a tenth more by chance, so that
// machines that joined together do not renew together.
func (i *Identity) RenewIn() (time.Duration, error) {
	cert, err := i.store.Certificate()
	if err != nil {
		return 0, err
	}
	life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
	if life <= 0 {
		return 0, errs.New(errs.Invalid, "cannot plan renewal: the certificate has no life")
	}
	at := pki.RenewAt(cert.Leaf).Add(rand.N(life/10 + 1))
	return max(at.Sub(i.clock.now()), minRenewal), nil
}

func encodeChain(cert *tls.Certificate) ([]byte, error) {
	chain := make([]*x509.Certificate, len(cert.Certificate))
	for n, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot parse own certificate: %w", err)
		}
		chain[n] = c
	}
	return pki.EncodeCerts(chain...), nil
}
