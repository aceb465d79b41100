package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// Verify checks that the first certificate of chain was issued under one of the roots, is valid at now and allows the
// use, and returns its identity. Errors have the kind errs.Unauthenticated and name the cause.
func Verify(chain, roots []*x509.Certificate, now time.Time, use x509.ExtKeyUsage) (ID, error) {
	if len(chain) == 0 {
		return ID{}, errs.New(errs.Unauthenticated, "cannot verify certificate: none was presented")
	}
	opts := x509.VerifyOptions{
		Roots:         pool(roots),
		Intermediates: pool(chain[1:]),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{use},
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return ID{}, explain(err, chain[0], now)
	}
	id, err := FromCert(chain[0])
	if err != nil {
		return ID{}, errs.New(errs.Unauthenticated, "cannot verify certificate: %w", err)
	}
	return id, nil
}

// explain gives the usual two causes, time and a foreign authority, a hint.
func explain(err error, leaf *x509.Certificate, now time.Time) error {
	e := errs.New(errs.Unauthenticated, "cannot verify certificate: %w", err)
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(leaf.NotBefore):
		return e.WithHint("the clock here says %s, before the certificate begins: check the clocks on both sides", now.UTC().Format(time.RFC3339))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return e.WithHint("the certificate ended at %s: renew it, or check the clocks on both sides", leaf.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &unknown):
		return e.WithHint("it was issued by another cluster, or by an authority that is retired")
	}
	return e
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// VerifyPinnedChain returns a check for tls.Config.VerifyConnection that trusts a server of the cluster whose chain
// holds a certificate with one of the pins (see [SPKIPin]) that signed the first certificate. It does not look at the
// time, for it serves Join, which comes before the clock is right. An empty cluster matches every cluster.
func VerifyPinnedChain(pins []string, cluster string) func(tls.ConnectionState) error {
	pins = slices.Clone(pins)
	return func(cs tls.ConnectionState) error {
		chain := cs.PeerCertificates
		var roots []*x509.Certificate
		for _, c := range chain {
			if slices.Contains(pins, SPKIPin(c)) {
				roots = append(roots, c)
			}
		}
		if len(roots) == 0 {
			return errs.New(errs.Unauthenticated, "cannot verify server: no certificate in its chain has a pinned key").
				WithHint("the server belongs to another cluster, or its authority was rotated since this machine's user-data was made")
		}
		// A leaf never outlives its authority, and both begin an hour before they were made: the later beginning is in both.
		at := chain[0].NotBefore
		for _, r := range roots {
			if r.NotBefore.After(at) {
				at = r.NotBefore
			}
		}
		id, err := Verify(chain, roots, at, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return err
		}
		return expect(id, cluster, []Kind{Server}, "")
	}
}

// expect checks an identity that was verified. Empty wants match everything.
func expect(id ID, cluster string, kinds []Kind, name string) error {
	switch {
	case cluster != "" && id.Cluster != cluster:
		return errs.New(errs.Unauthenticated, "cannot accept certificate of %s: it is of another cluster", id)
	case len(kinds) > 0 && !slices.Contains(kinds, id.Kind):
		return errs.New(errs.Unauthenticated, "cannot accept certificate of %s: no %s may connect here", id, id.Kind)
	case name != "" && id.Name != name:
		return errs.New(errs.Unauthenticated, "cannot accept certificate of %s: expected %s", id, name)
	}
	return nil
}
