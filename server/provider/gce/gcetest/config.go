package gcetest

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/memnet"
)

// Config of a server. The zero value is a project with capacity and quota for all, whose operations take 20 ms.
type Config struct {
	// Model of the API. Default: loaded, which takes about 0.1 s. It may be shared.
	Model *Model
	// Project id. Default: test-project.
	Project string
	// Pipe has the server reached over connections in memory instead of loopback, as in testing/synctest bubbles.
	Pipe bool
	// Auth says whether a bearer token, "" where there is none, is good: 0, or the status to refuse it with, 401 or 403.
	// Default: all are.
	Auth func(token string) int
	// Pending and Running are how long operations are in these states. Default: 5 ms and 15 ms.
	Pending, Running time.Duration
	// Lag is how long lists show a former state.
	Lag time.Duration
	// PreemptionNotice is how long a preempted instance is STOPPING. Default: 30s, as the vendor gives it.
	PreemptionNotice time.Duration
	// Boot is what instances write to their serial port. Default: one line.
	Boot string
}

// Server is an http.Handler that serves the API. All methods may be called concurrently.
type Server struct {
	// URL is the endpoint for a client, with the path /compute/v1/.
	URL string
	// Client reaches the server.
	Client *http.Client

	config Config
	model  *Model
	catalog

	mu          sync.Mutex
	instances   []*instance
	byName      map[string]*instance // zone/name of those that exist
	disks       []*disk
	diskNamed   map[string]*disk
	firewalls   []*firewall
	operations  map[string]*operation // scope/name
	unfinished  []*operation
	requests    map[string]*operation // by method, path and request id
	serial      uint64
	addresses   uint32
	used        map[string]bool       // addresses
	lastAddress map[string]netip.Addr // by range
	controls
	calls      []Call
	violations []string
}

// New makes a server that nobody serves yet.
func New(c Config) (*Server, error) {
	c.Project = cmp.Or(c.Project, "test-project")
	c.Pending = cmp.Or(c.Pending, 5*time.Millisecond)
	c.Running = cmp.Or(c.Running, 15*time.Millisecond)
	c.PreemptionNotice = cmp.Or(c.PreemptionNotice, 30*time.Second)
	c.Boot = cmp.Or(c.Boot, "Booting `Debian GNU/Linux'\r\n")
	if c.Model == nil {
		var err error
		if c.Model, err = LoadModel(); err != nil {
			return nil, err
		}
	}
	s := &Server{
		config: c, model: c.Model, catalog: newCatalog(c.Project),
		byName: map[string]*instance{}, diskNamed: map[string]*disk{}, operations: map[string]*operation{}, requests: map[string]*operation{},
		serial: 1000, used: map[string]bool{}, lastAddress: map[string]netip.Addr{},
	}
	s.capacity, s.quota = map[string]int{}, map[string]float64{}
	return s, nil
}

// Start serves until the end of the test, which fails if there was a violation.
func Start(t testing.TB, c Config) *Server {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Pipe {
		s.pipe(t)
	} else {
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		s.URL, s.Client = server.URL+s.model.basePath, server.Client()
	}
	t.Cleanup(func() {
		for _, v := range s.Violations() {
			t.Errorf("violation of the API: %s", v)
		}
	})
	return s
}

// pipe serves in memory.
func (s *Server) pipe(t testing.TB) {
	network := memnet.Serve(s)
	s.URL, s.Client = "http://compute.test"+s.model.basePath, network.Client()
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Errorf("cannot close the test server: %v", err)
		}
	})
}
