package transfer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Config of a Server.
type Config struct {
	// Set returns the zones that are being answered from. Required.
	Set func() *zone.Set
	// Policy returns who may have copies of a zone, whose origin is in lower case with final dot. Required.
	Policy func(origin string) Policy
	// Online answers questions for signatures of zones that are signed online, where the question came with a TSIG record. It
	// gets the query without that. Nil: SERVFAIL.
	Online func(ctx context.Context, set *zone.Set, query []byte, tcp bool) []byte
	// Logger is required.
	Logger *slog.Logger
	// JournalSize bounds the differences that are kept of each zone, in octets. Zero means DefaultJournalSize.
	JournalSize int
	// MaxTransfers bounds the transfers that are sent at a time; further ones wait. Zero means 16.
	MaxTransfers int
	// Dial opens the way to a secondary for NOTIFY. Nil means UDP from any address.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// Policy says who may have copies of a zone. The zero Policy is nobody.
type Policy struct {
	// Keys are those of which a transfer needs one, and that may sign other questions about the zone. They count by what they
	// are, not by name: a key of the same name that another zone has does not open this one.
	Keys []tsig.Key
	// Secondaries are told of changes.
	Secondaries []Secondary
}

// Secondary is a server that keeps a copy of a zone.
type Secondary struct {
	Address netip.AddrPort
	// Key signs what the secondary is told. The zero key: nothing is signed.
	Key tsig.Key
}

// Server answers what is more than a question, and tells secondaries of changes. It is safe for concurrent use.
type Server struct {
	cfg     Config
	slots   chan struct{}
	notices notices

	mu       sync.Mutex
	journals map[string]*Journal
}

// New makes a server.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Set == nil:
		return nil, errors.New("transfer: no zones")
	case cfg.Policy == nil:
		return nil, errors.New("transfer: no policy")
	case cfg.Logger == nil:
		return nil, errors.New("transfer: no logger")
	}
	if cfg.MaxTransfers <= 0 {
		cfg.MaxTransfers = 16
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", to.String())
		}
	}
	return &Server{
		cfg: cfg, slots: make(chan struct{}, cfg.MaxTransfers), journals: map[string]*Journal{},
		notices: notices{wake: make(chan struct{}, 1), news: map[string]bool{}, codes: map[target]zone.Rcode{}},
	}, nil
}

// Delta notes the difference between two versions of a zone, of which the second is about to be published; see [Journal.Add].
// A version that it is not told of costs the secondaries a whole transfer. To nil means that the zone goes.
func (s *Server) Delta(from, to *zone.Zone, names []string) {
	if to == nil {
		if from != nil {
			s.forget(from.Origin())
		}
		return
	}
	if to.Mode() == zone.Online || len(s.cfg.Policy(to.Origin()).Keys) == 0 {
		s.forget(to.Origin())
		return
	}
	s.journal(to.Origin()).Add(from, to, names)
}

func (s *Server) journal(origin string) *Journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.journals[origin]
	if j == nil {
		j = NewJournal(s.cfg.JournalSize)
		s.journals[origin] = j
	}
	return j
}

func (s *Server) forget(origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.journals, origin)
}

// Special answers a message that is more than a question: a transfer, a NOTIFY, or one with a TSIG record. It calls send for
// each message of the answer; send must not keep the octets. The options are for the OPT record of the first one. Errors are
// those of send and of ctx.
func (s *Server) Special(ctx context.Context, from netip.AddrPort, query []byte, tcp bool, options []byte, send func(msg []byte) error) error {
	r := request{server: s, set: s.cfg.Set(), from: from, tcp: tcp, options: options, send: send}
	return r.answer(ctx, query)
}
