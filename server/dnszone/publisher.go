package dnszone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/provisionr/provisionr/dnsserver/zone"
	"github.com/provisionr/provisionr/server/state"
)

// State is what a Publisher reads.
type State interface {
	Read() *state.Snapshot
	Watch(tables ...state.Table) <-chan struct{}
	Changes(after uint64, until *state.Snapshot) ([]state.Row, bool)
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
	// Delta, if set, is told of each new version of a zone before it is answered, with the names that may differ, the
	// origin's apart. Nil names mean that any may.
	Delta func(from, to *zone.Zone, names []string)
}

// Publisher keeps a DNS server's zones at the state. A change costs what it changes, not what there is; only a change of
// the zones themselves, of networks or of servers has all of them built anew.
type Publisher struct {
	cfg PublisherConfig
	// view and zones, by origin without final dot, are what was published last, at a publication of the state and under a
	// serial. A nil view means that nothing was, or that it is not known.
	view   *view
	zones  map[string]*zone.Zone
	at     uint64
	serial uint32
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
		if err := p.publish(ctx, p.cfg.State.Read()); err != nil && ctx.Err() == nil {
			p.cfg.Logger.Error("cannot publish dns zones", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (p *Publisher) publish(ctx context.Context, s *state.Snapshot) error {
	if s.Cluster() == nil {
		return nil
	}
	serial := Serial(s.Cluster())
	// RFC 1982 section 3.2. While a cluster is restored, its older state is there before its new serials.
	if p.zones != nil && int32(serial-p.serial) < 0 {
		p.cfg.Logger.Warn("dns zones wait for serials to go on", "serial", serial, "published", p.serial)
		return nil
	}
	next, err := p.change(ctx, s, serial)
	if err != nil {
		p.cfg.Logger.Warn("dns zones are built anew after an error", "error", err)
	}
	if next == nil {
		if next, err = p.build(ctx, s); err != nil {
			return err
		}
	}
	p.at = s.Publication()
	if len(next) == 0 {
		return nil
	}
	// What fails from here on has the next turn build anew.
	view := p.view
	p.view = nil
	zones := make([]*zone.Zone, 0, len(next))
	for _, origin := range slices.Sorted(maps.Keys(next)) {
		v := next[origin]
		if v.from != nil && p.cfg.Delta != nil {
			p.cfg.Delta(v.from, v.zone, v.names)
		}
		zones = append(zones, v.zone)
	}
	if err := p.cfg.Answers.Set(zones); err != nil {
		return err
	}
	p.zones = make(map[string]*zone.Zone, len(next))
	for origin, v := range next {
		p.zones[origin] = v.zone
	}
	p.view, p.serial = view, serial
	p.cfg.Logger.Debug("dns zones published", "serial", serial, "zones", len(zones))
	return nil
}

// version is a new version of a zone and where it comes from.
type version struct {
	from, zone *zone.Zone
	names      []string
}

// change makes the next versions out of the present ones. It returns nil if they have to be built anew, and none where nothing
// is different.
func (p *Publisher) change(ctx context.Context, s *state.Snapshot, serial uint32) (map[string]version, error) {
	view := p.view
	if view == nil {
		return nil, nil
	}
	rows, ok := p.cfg.State.Changes(p.at, s)
	if ok && len(rows) == 0 && serial == p.serial && view.layout.holds(s, p.cfg.Zones) {
		return map[string]version{}, nil
	}
	// Below that level not every change of what is published is a change of names.
	if !ok || !s.NamesLevel() {
		return nil, nil
	}
	// Until the changes are made, the view is neither here nor there.
	p.view = nil
	t, ok := view.track(s, rows)
	if !ok {
		return nil, nil
	}
	changes := t.changes(p.zones)
	next := make(map[string]version, len(p.zones))
	if len(changes) > 0 || serial != p.serial {
		for origin, from := range p.zones {
			v, err := p.advance(ctx, s, origin, from, serial, changes[origin])
			if err != nil {
				return nil, err
			}
			next[origin] = v
		}
	}
	view.rest()
	p.view = view
	return next, nil
}

func (p *Publisher) advance(ctx context.Context, s *state.Snapshot, origin string, from *zone.Zone, serial uint32, changes []zone.Change) (version, error) {
	if from.Mode() == zone.Presigned {
		signer, err := p.cfg.Zones.Signing.Signer(s, origin)
		if err != nil {
			return version{}, fmt.Errorf("cannot sign zone %s: %w", origin, err)
		}
		if changes, err = signer.Sign(ctx, from, serial, changes); err != nil {
			return version{}, fmt.Errorf("cannot sign zone %s: %w", origin, err)
		}
	}
	to, err := from.With(serial, changes)
	if err != nil {
		return version{}, err
	}
	names := make([]string, len(changes))
	for i, c := range changes {
		names[i] = c.Name
	}
	return version{from: from, zone: to, names: names}, nil
}

// build makes all zones anew.
func (p *Publisher) build(ctx context.Context, s *state.Snapshot) (map[string]version, error) {
	view := newView(s, p.cfg.Zones)
	next := make(map[string]version, len(view.layout.zones))
	for _, c := range view.plan() {
		z, err := zone.Build(c)
		if err != nil {
			return nil, err
		}
		former := p.zones[c.Origin]
		if c.Mode == zone.Presigned {
			if z, err = p.sign(ctx, s, c.Origin, z, former); err != nil {
				return nil, fmt.Errorf("cannot sign zone %s: %w", c.Origin, err)
			}
		}
		next[c.Origin] = version{from: former, zone: z}
	}
	view.rest()
	p.view = view
	return next, nil
}

func (p *Publisher) sign(ctx context.Context, s *state.Snapshot, origin string, plain, former *zone.Zone) (*zone.Zone, error) {
	signer, err := p.cfg.Zones.Signing.Signer(s, origin)
	if err != nil {
		return nil, err
	}
	changes, err := signer.SignAll(ctx, plain, former)
	if err != nil {
		return nil, err
	}
	return plain.With(plain.Serial(), changes)
}
