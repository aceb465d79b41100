package ca

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
)

// renewRetry is the pause after a renewal that failed; there are two weeks to try again.
const renewRetry = time.Minute

// RenewConfig of a Renewer. All fields are required.
type RenewConfig struct {
	CA *CA
	// Store has this member's key and certificate.
	Store *pki.Store
	// Member is this member's name.
	Member string
	// Hosts are the names and addresses for the certificate.
	Hosts func() []string
	// Changed returns a channel that is closed when authorities change; it is asked before they are read.
	Changed func() <-chan struct{}
	Logger  *slog.Logger
}

// Renewer keeps one member's certificate and roots on disk fresh: it renews at half of the certificate's life and when
// another authority signs, and takes over new roots at once.
type Renewer struct {
	config RenewConfig
}

// NewRenewer makes a Renewer.
func NewRenewer(c RenewConfig) (*Renewer, error) {
	if c.CA == nil || c.Store == nil || c.Member == "" || c.Hosts == nil || c.Changed == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make renewer: a field of its configuration is missing")
	}
	return &Renewer{config: c}, nil
}

// Run renews until ctx ends. A renewal that fails is logged and tried again.
func (r *Renewer) Run(ctx context.Context) error {
	for {
		changed := r.config.Changed()
		wait, err := r.once()
		if err != nil {
			r.config.Logger.WarnContext(ctx, "cannot renew this server's certificate", "error", err)
			wait = renewRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// once renews what is due and returns how long nothing will be.
func (r *Renewer) once() (time.Duration, error) {
	a := r.config.CA
	now := a.config.Now()
	_, signer, err := a.newestActive(a.config.State())
	if err != nil {
		return 0, err
	}
	cert, err := r.config.Store.Certificate()
	if err != nil {
		return 0, err
	}
	roots := a.RootsPEM()
	due := !now.Before(pki.RenewAt(cert.Leaf)) || cert.Leaf.CheckSignatureFrom(signer) != nil
	var chain []byte
	switch {
	case due:
		if chain, err = a.IssueServer(r.config.Member, &r.config.Store.Key().PublicKey, r.config.Hosts()); err != nil {
			return 0, err
		}
	case bytes.Equal(roots, pki.EncodeCerts(r.config.Store.Roots()...)):
		return pki.RenewAt(cert.Leaf).Sub(now), nil
	default:
		chain = chainPEM(pki.Server, cert.Leaf, signer)
	}
	if err := r.config.Store.Put(chain, roots); err != nil {
		return 0, err
	}
	certs, err := pki.ParseCerts(chain)
	if err != nil {
		return 0, err
	}
	r.config.Logger.Info("this server's certificate or roots were replaced", "until", certs[0].NotAfter, "renewed", due)
	return pki.RenewAt(certs[0]).Sub(now), nil
}
