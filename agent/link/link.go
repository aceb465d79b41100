package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/identity"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Store keeps the components of the desired state: the cache.
type Store interface {
	Have() [][]byte
	Missing(*agentv1.Desired) [][]byte
	Put(hash, body []byte) error
	Commit(*agentv1.Desired) (*desired.State, error)
}

// Runner runs commands for operators.
type Runner interface {
	Stream(ctx context.Context, c host.Command, stdout, stderr io.Writer) (exit int, err error)
}

// Config of a Link. All fields but Connected and Ask are required.
type Config struct {
	Identity *identity.Identity
	Store    Store
	Outbox   *Outbox
	Runner   Runner
	// Desired is called with each new desired state once it is on disk. It must return soon.
	Desired func(*desired.State)
	// Verify proves all assumptions anew and puts the outcome into the outbox.
	Verify func(context.Context)
	// Ask does one thing that a server wants and answers it; id is filled in by the link. Next, where not nil, is called once
	// the answer was given to the stream. Nil refuses all.
	Ask func(ctx context.Context, ask *agentv1.Ask) (answer *agentv1.Answer, next func())
	// Connected is called with the server's name when a session begins, and with "" when it ends.
	Connected func(server string)
	// AgentVersion and BootID are told to the servers.
	AgentVersion string
	// Program is the SHA-256 of the agent's program; empty where it has none of its own.
	Program []byte
	BootID  string
	Logger  *slog.Logger
}

// Link keeps the machine connected.
type Link struct {
	Config
	verifies chan struct{}
	asks     chan struct{}
	// client is that of the session's connection, or nil.
	client atomic.Pointer[agentv1.AgentServiceClient]
}

// New returns a Link that Run connects.
func New(c Config) (*Link, error) {
	if c.Identity == nil || c.Store == nil || c.Outbox == nil || c.Runner == nil || c.Desired == nil || c.Verify == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make link: a required field is missing")
	}
	if c.Connected == nil {
		c.Connected = func(string) {}
	}
	if c.Ask == nil {
		c.Ask = refuse
	}
	return &Link{Config: c, verifies: make(chan struct{}, maxVerifies), asks: make(chan struct{}, maxAsks)}, nil
}

// Run joins where needed and keeps a session until ctx ends; it returns nil then.
func (l *Link) Run(ctx context.Context) error {
	failures := 0
	reported := ""
	for ctx.Err() == nil {
		lasted, err := l.round(ctx)
		if ctx.Err() != nil {
			break
		}
		if lasted >= settled {
			failures = 0
		}
		failures++
		// Each cause is logged once until it changes: a server that is away for a night is one line.
		if text := err.Error(); text != reported || lasted >= settled {
			reported = text
			l.Logger.Warn("no session with a server", "error", err, "hint", errs.HintOf(err), "lasted", lasted.Round(time.Millisecond))
		}
		if !sleep(ctx, wait(failures)) {
			break
		}
	}
	return nil
}

// round tries each endpoint once, until one gives a session, and returns how long that lasted and why it ended.
func (l *Link) round(ctx context.Context) (time.Duration, error) {
	var failed []error
	for _, endpoint := range l.Identity.Endpoints() {
		start := time.Now()
		began, err := l.attempt(ctx, endpoint)
		if began || ctx.Err() != nil {
			return time.Since(start), err
		}
		failed = append(failed, err)
	}
	return 0, worst(failed)
}

// worst returns the error that tells most: a refusal says more than a server that is away.
func worst(failed []error) error {
	for _, err := range failed {
		if k := errs.KindOf(err); k != errs.Unavailable && k != errs.Timeout && k != errs.Canceled {
			return err
		}
	}
	if len(failed) == 0 {
		return errs.New(errs.Unavailable, "cannot connect: no server endpoint is known")
	}
	// Endpoints are tried in random order: the same choice each time keeps the log quiet.
	return slices.MinFunc(failed, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
}

// attempt joins if needed, renews an expired certificate, and holds a session at one endpoint. It reports whether one began.
func (l *Link) attempt(ctx context.Context, endpoint string) (began bool, err error) {
	if !l.Identity.Joined() {
		if err := l.join(ctx, endpoint); err != nil {
			return false, at(endpoint, err)
		}
	}
	began, err = l.enter(ctx, endpoint)
	if !began && ctx.Err() == nil && errs.Is(err, errs.Unauthenticated) {
		// The certificate ended, by this machine's reckoning or the server's: renew it, and show the new one.
		if renewErr := l.renewAt(ctx, endpoint); renewErr != nil {
			return false, at(endpoint, errors.Join(err, renewErr))
		}
		began, err = l.enter(ctx, endpoint)
	}
	return began, at(endpoint, err)
}

// enter holds a session over a new connection.
func (l *Link) enter(ctx context.Context, endpoint string) (began bool, err error) {
	if l.Identity.Expired() {
		return false, errs.New(errs.Unauthenticated, "the machine's certificate has expired")
	}
	conn, err := l.connect(endpoint, l.Identity.TLS)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return l.session(ctx, agentv1.NewAgentServiceClient(conn))
}

func (l *Link) renewAt(ctx context.Context, endpoint string) error {
	conn, err := l.connect(endpoint, l.Identity.TLS)
	if err != nil {
		return err
	}
	defer conn.Close()
	return l.renew(ctx, agentv1.NewAgentServiceClient(conn))
}

func at(endpoint string, err error) error {
	if err == nil {
		return errs.New(errs.Unavailable, "session with %s ended", endpoint)
	}
	e := errs.New(errs.KindOf(err), "cannot keep a session with %s: %w", endpoint, err)
	if hint := errs.HintOf(err); hint != "" {
		e = e.WithHint("%s", hint)
	}
	return e
}

func (l *Link) connect(endpoint string, config func() (*tls.Config, error)) (*grpc.ClientConn, error) {
	c, err := config()
	if err != nil {
		return nil, err
	}
	return connect(endpoint, c, l.AgentVersion)
}

func (l *Link) join(ctx context.Context, endpoint string) error {
	req, err := l.Identity.JoinRequest(l.AgentVersion)
	if err != nil {
		return err
	}
	conn, err := l.connect(endpoint, l.Identity.JoinTLS)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	sent := time.Now()
	resp, err := agentv1.NewAgentServiceClient(conn).Join(ctx, req)
	if err != nil {
		return errs.FromRPC(err)
	}
	if err := l.Identity.Accept(resp, sent); err != nil {
		return err
	}
	l.Logger.Info("joined", "machine", l.Identity.MachineID(), "clock_skew", l.Identity.Skew().Round(time.Millisecond))
	return nil
}

func (l *Link) renew(ctx context.Context, client agentv1.AgentServiceClient) error {
	req, err := l.Identity.RenewRequest()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	sent := time.Now()
	resp, err := client.Renew(ctx, req)
	if err != nil {
		return errs.FromRPC(err)
	}
	if err := l.Identity.Accept(resp, sent); err != nil {
		return err
	}
	l.Logger.Info("certificate renewed")
	return nil
}
