package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// ServerConfig says how a listener presents itself and whom it lets in.
type ServerConfig struct {
	// Certificate is asked at each handshake. Required. Its chain should include the root, for clients that pin it.
	Certificate func() (*tls.Certificate, error)
	// Roots are asked at each handshake. Required.
	Roots func() []*x509.Certificate
	// Cluster that clients must belong to. Required.
	Cluster string
	// Clients are the kinds of identities that may connect; none lets every kind in.
	Clients []Kind
	// Optional admits connections without a client certificate; one that is presented must be right all the same.
	Optional bool
	// ExpiredGrace admits client certificates that ended less than this ago. Where it is not zero, handlers must
	// check [Expired] for all but renewal.
	ExpiredGrace time.Duration
	// Protocols are offered by ALPN, most wanted first. Default: none.
	Protocols []string
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// ServerTLS returns a configuration for a listener.
func ServerTLS(c ServerConfig) (*tls.Config, error) {
	if c.Certificate == nil || c.Roots == nil || c.Cluster == "" {
		return nil, errs.New(errs.Internal, "cannot make TLS configuration: certificate, roots and cluster are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Clients = slices.Clone(c.Clients)
	base := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: slices.Clone(c.Protocols),
		// The standard library's own verification would use roots fixed in the configuration and would not run for
		// resumed sessions; verifyClient does both.
		ClientAuth:     tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Certificate() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			return c.verifyClient(cs)
		},
		Time: c.Now,
	}
	if c.Optional {
		base.ClientAuth = tls.RequestClientCert
	}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		// The roots' names are sent to the client, so that browsers offer no foreign certificate.
		forClient := base.Clone()
		forClient.GetConfigForClient = nil
		forClient.ClientCAs = pool(c.Roots())
		return forClient, nil
	}
	return base, nil
}

func (c *ServerConfig) verifyClient(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		if c.Optional {
			return nil
		}
		return errs.New(errs.Unauthenticated, "cannot accept connection: no client certificate")
	}
	now := c.Now()
	if end := cs.PeerCertificates[0].NotAfter; now.After(end) && now.Sub(end) < c.ExpiredGrace {
		now = end
	}
	id, err := Verify(cs.PeerCertificates, c.Roots(), now, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	return expect(id, c.Cluster, c.Clients, "")
}

// Expired reports whether a certificate is past its end.
func Expired(cert *x509.Certificate, now time.Time) bool { return now.After(cert.NotAfter) }

// ClientConfig says how a client presents itself and whom it believes to be the server.
type ClientConfig struct {
	// Certificate is asked at each handshake. Default: none is presented.
	Certificate func() (*tls.Certificate, error)
	// Roots are asked at each handshake. Required unless Pins are given.
	Roots func() []*x509.Certificate
	// Pins replace the roots, and time is not looked at: see [VerifyPinnedChain].
	Pins []string
	// Cluster of the server. Default: any.
	Cluster string
	// Name of the member that must answer. Default: any member.
	Name string
	// Protocols are offered by ALPN. Default: none.
	Protocols []string
	// Sessions holds tickets for resumption. Default: no resumption.
	Sessions tls.ClientSessionCache
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// ClientTLS returns a configuration for dialling servers. It checks the server's identity, never its host name.
func ClientTLS(c ClientConfig) (*tls.Config, error) {
	if c.Roots == nil && len(c.Pins) == 0 {
		return nil, errs.New(errs.Internal, "cannot make TLS configuration: roots or pins are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: slices.Clone(c.Protocols),
		// Host names are not checked, the chain and the identity are: by VerifyConnection, with roots as of now.
		InsecureSkipVerify: true,
		ClientSessionCache: c.Sessions,
		Time:               c.Now,
	}
	if c.Certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate() }
	}
	if len(c.Pins) > 0 {
		config.VerifyConnection = VerifyPinnedChain(c.Pins, c.Cluster)
		return config, nil
	}
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := Verify(cs.PeerCertificates, c.Roots(), c.Now(), x509.ExtKeyUsageServerAuth)
		if err != nil {
			return err
		}
		return expect(id, c.Cluster, []Kind{Server}, c.Name)
	}
	return config, nil
}

// TLSCertificate joins a chain in PEM, leaf first, with its key. A key that does not belong to the leaf is refused.
func TLSCertificate(chainPEM []byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	chain, err := ParseCerts(chainPEM)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, errs.New(errs.Invalid, "cannot use certificate: it is for another key")
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}
