package dnszone

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
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
	// origin's apart. Nil names mean that any may; no version means that the zone goes.
	Delta func(from, to *zone.Zone, names []string)
}

// Bounds of a publisher.
const (
	// many is how many names take long enough to sign that the other zones do not wait for them.
	many = 4096
	// pause and longest are the least and the most time until zones that cannot be signed are tried again.
	pause, longest = 10 * time.Second, 5 * time.Minute
)

// Publisher keeps a DNS server's zones at the state. A change costs what it changes, not what there is; only a change of
// the zones themselves, of networks or of servers has all of them built anew. A zone that cannot be signed is left out until
// it can: nobody who checks would take it unsigned, and others must not take what is old.
type Publisher struct {
	cfg PublisherConfig
	// view and zones, by origin without final dot, are what was published last, at a publication of the state and under a
	// serial. A nil view means that nothing was, or that it is not known.
	view   *view
	zones  map[string]*zone.Zone
	at     uint64
	serial uint32
	// signers made the signed ones of the zones.
	signers map[string]Signer
	// failed are the origins that are left out. They are tried again at a time, for which pause was waited, or when sealed,
	// which opens keys, is another one.
	failed map[string]bool
	again  time.Time
	pause  time.Duration
	sealed *raftlogv1.SealedKey
}

// NewPublisher makes a Publisher.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	if cfg.State == nil || cfg.Answers == nil || cfg.Logger == nil {
		return nil, errors.New("dnszone: state, answers and logger are required")
	}
	return &Publisher{cfg: cfg, signers: map[string]Signer{}, failed: map[string]bool{}}, nil
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
		var again <-chan time.Time
		if len(p.failed) > 0 {
			again = time.After(time.Until(p.again))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
	}
}

func (p *Publisher) publish(ctx context.Context, s *state.Snapshot) error {
	if p.retries(s) {
		p.view = nil
	}
	if s.Cluster() == nil {
		return nil
	}
	serial := Serial(s.Cluster())
	// RFC 1982 section 3.2. While a cluster is restored, its older state is there before its new serials.
	if p.zones != nil && int32(serial-p.serial) < 0 {
		p.cfg.Logger.Warn("dns zones wait for serials to go on", "serial", serial, "published", p.serial)
		return nil
	}
	t, err := p.change(s, serial)
	if err != nil {
		p.cfg.Logger.Warn("dns zones are built anew after an error", "error", err)
	}
	if t == nil {
		if t, err = p.build(s); err != nil {
			return err
		}
	}
	p.at = s.Publication()
	if t.same {
		return nil
	}
	// What fails from here on has the next turn build anew.
	view := p.view
	p.view = nil
	if err := p.carryOut(ctx, t, serial); err != nil {
		return err
	}
	p.view = view
	p.cfg.Logger.Debug("dns zones published", "serial", serial, "zones", len(t.versions))
	return nil
}

// carryOut signs what is to be signed and has all of a turn answered. Where that takes long, the rest is answered first, and
// what is signed as it was before.
func (p *Publisher) carryOut(ctx context.Context, t *turn, serial uint32) error {
	if t.names() > many {
		first := maps.Clone(t.versions)
		for _, j := range t.jobs {
			if j.former != nil {
				first[j.origin] = version{from: j.former, zone: j.former}
			}
		}
		if len(first) > 0 {
			if err := p.answer(first, serial); err != nil {
				return err
			}
		}
		for origin, v := range t.versions {
			if len(first) > 0 {
				t.versions[origin] = version{from: v.zone, zone: v.zone}
			}
		}
	}
	for _, j := range t.jobs {
		v, err := j.sign(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.leave(j.origin, err)
			continue
		}
		t.versions[j.origin] = v
		p.signers[j.origin] = j.signer
		delete(p.failed, j.origin)
	}
	if len(p.failed) == 0 {
		p.pause = 0
	}
	return p.answer(t.versions, serial)
}

// answer has versions of all zones that there are answered.
func (p *Publisher) answer(next map[string]version, serial uint32) error {
	zones := make([]*zone.Zone, 0, len(next))
	for _, origin := range slices.Sorted(maps.Keys(next)) {
		v := next[origin]
		if v.from != nil && v.from != v.zone && p.cfg.Delta != nil {
			p.cfg.Delta(v.from, v.zone, v.names)
		}
		zones = append(zones, v.zone)
	}
	for origin, gone := range p.zones {
		if _, there := next[origin]; !there && p.cfg.Delta != nil {
			p.cfg.Delta(gone, nil, nil)
		}
	}
	if err := p.cfg.Answers.Set(zones); err != nil {
		return err
	}
	p.zones = make(map[string]*zone.Zone, len(next))
	for origin, v := range next {
		p.zones[origin] = v.zone
	}
	p.serial = serial
	return nil
}

// leave leaves a zone out that cannot be signed.
func (p *Publisher) leave(origin string, err error) {
	if !p.failed[origin] {
		p.cfg.Logger.Error("dns zone cannot be signed and is not answered; trying again", "zone", origin, "error", err)
	}
	if p.pause == 0 {
		p.pause, p.again = pause, time.Now().Add(pause)
	}
	p.failed[origin] = true
	delete(p.signers, origin)
}

// retries reports whether it is time to sign zones again that could not be signed, and it may work.
func (p *Publisher) retries(s *state.Snapshot) bool {
	sealed, now := s.SealedKey(), time.Now()
	switch {
	case len(p.failed) == 0:
		p.sealed = sealed
		return false
	case sealed != p.sealed:
		p.sealed, p.pause = sealed, pause
	case now.Before(p.again):
		return false
	default:
		p.pause = min(2*p.pause, longest)
	}
	p.again = now.Add(p.pause)
	for origin := range p.failed {
		if _, err := p.cfg.Zones.Signing.Signer(s, origin); err == nil {
			return true
		}
	}
	return false
}
