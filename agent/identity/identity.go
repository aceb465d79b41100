package identity

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	stateFile = "state.json"
	// maxEndpoints bounds what a server may hand out.
	maxEndpoints = 64
)

// Config of an Identity.
type Config struct {
	Host host.Host
	// Bootstrap is the path of the bootstrap file below the host's root. Default: /etc/provisionr/bootstrap.json.
	Bootstrap string
	// Dir is the directory of key, certificate and trust below the host's root. Default: /var/lib/provisionr-agent/identity.
	Dir string
	// Logger of what becomes of the identity. Required.
	Logger *slog.Logger
}

// Identity is the machine's identity on disk. Safe for several goroutines.
type Identity struct {
	config    Config
	bootstrap *Bootstrap
	id        pki.ID
	store     *pki.Store
	clock     clock

	mu       sync.Mutex
	state    state
	sessions tls.ClientSessionCache
}

// state is kept in JSON beside key and certificate.
type state struct {
	ClusterID string `json:"cluster_id"`
	MachineID string `json:"machine_id"`
	// Attempt whose token the certificate was got with.
	Attempt uint32 `json:"attempt"`
	// TrustVersion and Endpoints are of the newest trust bundle; its roots are beside the certificate.
	TrustVersion uint64   `json:"trust_version"`
	Endpoints    []string `json:"endpoints"`
	// ClockOffset is the servers' time less the machine's, in nanoseconds.
	ClockOffset time.Duration `json:"clock_offset_ns"`
}

// Open reads the identity, and makes the key where there is none. A bootstrap file of another machine or cluster than the
// identity on disk, with a token in it, starts a new identity: the disk was reused.
func Open(c Config) (*Identity, error) {
	if c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot open identity: a logger is required")
	}
	if c.Bootstrap == "" {
		c.Bootstrap = "/etc/provisionr/bootstrap.json"
	}
	if c.Dir == "" {
		c.Dir = "/var/lib/provisionr-agent/identity"
	}
	data, err := c.Host.ReadFile(c.Bootstrap)
	if err != nil {
		return nil, errs.New(errs.NotFound, "cannot read bootstrap file: %w", err).
			WithHint("cloud-init writes %s at first boot; see /var/log/cloud-init-output.log", c.Bootstrap)
	}
	b, err := ParseBootstrap(data)
	if err != nil {
		return nil, err
	}
	i := &Identity{config: c, bootstrap: b, sessions: tls.NewLRUClientSessionCache(maxEndpoints)}
	if err := i.loadState(); err != nil {
		return nil, err
	}
	if i.store, err = pki.OpenStore(i.dir()); err != nil {
		return nil, err
	}
	if !i.Joined() {
		return i, nil
	}
	return i, scrub(c.Host, c.Bootstrap)
}

func (i *Identity) dir() string { return filepath.Join(i.config.Host.Root, i.config.Dir) }

func (i *Identity) loadState() error {
	data, err := i.config.Host.ReadFile(filepath.Join(i.config.Dir, stateFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Internal, "cannot read identity: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(data, &i.state); err != nil {
			return errs.New(errs.Internal, "cannot read identity: %s is damaged", stateFile).
				WithHint("remove %s and re-admit the machine", i.config.Dir)
		}
	}
	b := i.bootstrap
	if i.state.MachineID != "" && b.Token != "" && (i.state.MachineID != b.MachineID || i.state.ClusterID != b.ClusterID) {
		i.config.Logger.Warn("bootstrap file is of another machine: starting a new identity", "old", i.state.MachineID, "new", b.MachineID)
		if err := os.RemoveAll(i.dir()); err != nil {
			return errs.New(errs.Internal, "cannot remove old identity: %w", err)
		}
		i.state = state{}
	}
	if i.state.MachineID == "" {
		i.state.MachineID, i.state.ClusterID = b.MachineID, b.ClusterID
	}
	i.id = pki.ID{Cluster: i.state.ClusterID, Kind: pki.Agent, Name: i.state.MachineID}
	if !i.id.Valid() {
		return errs.New(errs.Invalid, "cannot use identity %q: cluster or machine id is not of the expected form", i.id)
	}
	i.clock.offset = i.state.ClockOffset
	return nil
}

// MachineID is the id of the machine.
func (i *Identity) MachineID() string { return i.id.Name }

// Joined reports whether there is a certificate and no newer token to be used.
func (i *Identity) Joined() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, err := i.store.Certificate(); err != nil {
		return false
	}
	return i.bootstrap.Token == "" || i.bootstrap.Attempt == i.state.Attempt
}

// Endpoints are where servers may be found, in random order: those of the newest trust bundle first, then those of the
// bootstrap file that are not among them.
func (i *Identity) Endpoints() []string {
	i.mu.Lock()
	known := slices.Clone(i.state.Endpoints)
	i.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(i.bootstrap.AgentEndpoints), func(e string) bool { return slices.Contains(known, e) })
	for _, list := range [][]string{known, rest} {
		rand.Shuffle(len(list), func(a, b int) { list[a], list[b] = list[b], list[a] })
	}
	return append(known, rest...)
}

// JoinRequest is the request that trades the token for a certificate.
func (i *Identity) JoinRequest(agentVersion string) (*agentv1.JoinRequest, error) {
	b := i.bootstrap
	if b.Token == "" {
		return nil, errs.New(errs.Unauthenticated, "cannot join: the one-time token was used, and there is no certificate").
			WithHint("have an operator re-admit the machine, or delete it: its pool replaces it")
	}
	csr, err := pki.NewCSR(i.store.Key())
	if err != nil {
		return nil, err
	}
	return &agentv1.JoinRequest{MachineId: b.MachineID, Token: b.Token, Attempt: b.Attempt, Csr: csr, AgentVersion: agentVersion}, nil
}

// RenewRequest is the request for a new certificate for the same key.
func (i *Identity) RenewRequest() (*agentv1.RenewRequest, error) {
	csr, err := pki.NewCSR(i.store.Key())
	if err != nil {
		return nil, err
	}
	return &agentv1.RenewRequest{Csr: csr}, nil
}

// Accept stores the certificate that a server issued in answer to a request sent at that time, on disk first.
// After a Join the token is scrubbed.
func (i *Identity) Accept(r *agentv1.JoinResponse, sent time.Time) error {
	chain, err := pki.TLSCertificate(r.Certificate, i.store.Key())
	if err != nil {
		return err
	}
	if id, err := pki.FromCert(chain.Leaf); err != nil || id != i.id {
		return errs.New(errs.Internal, "cannot accept certificate: it is not for %s", i.id)
	}
	if r.ServerTime != nil {
		i.Observe(r.ServerTime.AsTime(), sent)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	roots := r.Trust.GetRoots()
	next := i.state
	switch {
	case r.Trust == nil || r.Trust.Version < i.state.TrustVersion:
		roots = pki.EncodeCerts(i.store.Roots()...)
	default:
		if err := i.takeTrust(&next, r.Trust); err != nil {
			return err
		}
	}
	if err := i.store.Put(r.Certificate, roots); err != nil {
		return err
	}
	next.Attempt = i.bootstrap.Attempt
	if err := i.save(next); err != nil {
		return err
	}
	// Tickets hold the old certificate on the server's side.
	i.sessions = tls.NewLRUClientSessionCache(maxEndpoints)
	return scrub(i.config.Host, i.config.Bootstrap)
}

// SetTrust takes a trust bundle that is newer than the present one, on disk first; an older one is ignored.
func (i *Identity) SetTrust(t *agentv1.Trust) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if t == nil || t.Version <= i.state.TrustVersion {
		return nil
	}
	cert, err := i.store.Certificate()
	if err != nil {
		return err
	}
	next := i.state
	if err := i.takeTrust(&next, t); err != nil {
		return err
	}
	if slices.Equal(next.Endpoints, i.state.Endpoints) && bytes.Equal(t.Roots, pki.EncodeCerts(i.store.Roots()...)) {
		i.state = next // it says nothing new: the version is written with what comes next
		return nil
	}
	chain, err := encodeChain(cert)
	if err != nil {
		return err
	}
	if err := i.store.Put(chain, t.Roots); err != nil {
		return err
	}
	return i.save(next)
}

func (i *Identity) takeTrust(next *state, t *agentv1.Trust) error {
	if t.ClusterId != i.id.Cluster {
		return errs.New(errs.Internal, "cannot accept trust bundle: it is of cluster %q", t.ClusterId)
	}
	if len(t.Endpoints) == 0 || len(t.Endpoints) > maxEndpoints {
		return errs.New(errs.Internal, "cannot accept trust bundle: it has %d endpoints", len(t.Endpoints))
	}
	next.TrustVersion, next.Endpoints = t.Version, slices.Clone(t.Endpoints)
	return checkEndpoints(t.Endpoints)
}

// save writes the state and takes it. The caller holds the lock.
func (i *Identity) save(next state) error {
	data, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return errs.New(errs.Internal, "cannot encode identity: %w", err)
	}
	if err := pki.WriteFile(filepath.Join(i.dir(), stateFile), append(data, '\n')); err != nil {
		return err
	}
	i.state = next
	return nil
}
