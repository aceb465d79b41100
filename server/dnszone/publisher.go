package dnszone

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// State is what a Publisher reads.
type State interface {
	Read() *state.Snapshot
	Watch(tables ...state.Table) <-chan struct{}
}

// Answers is where the zones go: a DNS server.
type Answers interface {
	Set(zones []*zone.Zone) error
}

// PublisherConfig of a Publisher.
type PublisherConfig struct {
	// State, Answers and Logger are required.
	State   State
	Answers Answers
	Logger  *slog.Logger
	// Zones says what the state does not; its zero value serves.
	Zones Config
}

// Publisher keeps a DNS server's zones at the state.
type Publisher struct {
	cfg PublisherConfig
	// last identifies the names that were published.
	last string
}

// NewPublisher makes a Publisher.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	if cfg.State == nil || cfg.Answers == nil || cfg.Logger == nil {
		return nil, errors.New("dnszone: state, answers and logger are required")
	}
	return &Publisher{cfg: cfg}, nil
}

// Run publishes at once and after every change of names, until ctx ends, which is not an error. Zones that cannot be
// built leave the ones before in place.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		// The cluster record holds the index of the last change of names, so that most writes do not wake this loop.
		changed := p.cfg.State.Watch(state.TableCluster, state.TableMembers, state.TableNetworks, state.TableZones)
		if err := p.publish(p.cfg.State.Read()); err != nil {
			p.cfg.Logger.Error("cannot publish dns zones", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (p *Publisher) publish(s *state.Snapshot) error {
	if s.Cluster() == nil {
		return nil
	}
	mark := fingerprint(s)
	if mark == p.last {
		return nil
	}
	zones, err := Build(s, p.cfg.Zones)
	if err != nil {
		return err
	}
	if err := p.cfg.Answers.Set(zones); err != nil {
		return err
	}
	p.last = mark
	p.cfg.Logger.Debug("dns zones published", "serial", Serial(s.Cluster()), "zones", len(zones))
	return nil
}

// fingerprint says which names a snapshot has: the serial and the versions of the few rows that zones are cut from.
func fingerprint(s *state.Snapshot) string {
	var b strings.Builder
	add := func(values ...uint64) {
		for _, v := range values {
			b.WriteString(strconv.FormatUint(v, 36))
			b.WriteByte(' ')
		}
	}
	row := func(m *provisionrv1.Metadata) {
		b.WriteString(m.GetName())
		add(0, m.GetVersion().GetIncarnation(), m.GetVersion().GetIndex(), uint64(m.GetVersion().GetSub()))
	}
	add(uint64(s.Cluster().GetSerialBase()), s.Cluster().GetZoneIndex(), s.Cluster().GetIncarnation())
	for m := range s.Members() {
		row(m.GetMetadata())
	}
	for n := range s.Networks() {
		row(n.GetMetadata())
	}
	for z := range s.Zones() {
		row(z.GetMetadata())
	}
	return b.String()
}
