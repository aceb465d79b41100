package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/auth"
)

// Handler serves all of port 7443. Its connections must be TLS ones that ask for client certificates.
func (a *API) Handler() http.Handler { return a.handler }

func (a *API) routes(gateway http.Handler) http.Handler {
	rest := a.config.Door.Handler(notCrossOrigin(gateway))
	rpc := a.config.Door.Handler(a.grpc)
	mux := http.NewServeMux()
	mux.Handle("/v1/", rest)
	mux.Handle("/boot/", a.config.Boot)
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /openapi.json", openAPI)
	mux.Handle("/", a.config.Console)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth.IsGRPC(r) {
			rpc.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// notCrossOrigin keeps other sites' pages from acting with the client certificate of the browser that shows them.
func notCrossOrigin(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		auth.WriteError(w, errs.New(errs.Denied, "cannot accept a request that another site's page makes"))
	}))
	return p.Handler(next)
}

// health answers 200 when this server has a cluster's state and knows a leader, else 503.
func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	switch {
	case a.config.State.Read().Cluster() == nil:
		auth.WriteError(w, errs.New(errs.Unavailable, "the cluster is not initialised"))
	case a.config.Raft.Leader() == "":
		auth.WriteError(w, errs.New(errs.Unavailable, "no leader is known"))
	default:
		w.Header().Set("Content-Type", "text/plain")
		// A failure to write means that the client is gone.
		_, _ = w.Write([]byte("ok\n"))
	}
}

func openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(provisionrv1.OpenAPI())
}

// When the server stops, calls have drain to finish before their contexts are cancelled, which ends streams, and
// shutdownGrace until their connections are cut.
const (
	drain         = time.Second
	shutdownGrace = 5 * time.Second
)

// Run serves until ctx ends. It closes the listener, which must be a plain one: TLS is added here.
func (a *API) Run(ctx context.Context, listener net.Listener, config *tls.Config) error {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	server := &http.Server{
		Handler:     a.handler,
		TLSConfig:   config,
		BaseContext: func(net.Listener) context.Context { return base },
		// It bounds the TLS handshake, too. Bodies have no deadline: a snapshot may take long to upload.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// A client that is gone without a word is found by its missing answer to a ping.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 250, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		// What strangers send to an open port is not worth more than debug.
		ErrorLog: slog.NewLogLogger(a.config.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-served:
		return errs.New(errs.Internal, "cannot serve the API: %w", err)
	case <-ctx.Done():
	}
	defer time.AfterFunc(drain, stop).Stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = server.Close()
	}
	a.grpc.Stop()
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return errs.New(errs.Internal, "cannot stop the API cleanly: %w", err)
	}
	return nil
}
