package dnszone

import (
	"context"
	"fmt"
	"maps"

	"github.com/provisionr/provisionr/dnsserver/zone"
	"github.com/provisionr/provisionr/server/state"
)

// turn is the next versions of all zones.
type turn struct {
	// versions are by origin; those that are to be signed are among the jobs.
	versions map[string]version
	jobs     []job
	// same says that there are none: what is published is right.
	same bool
}

// version is a new version of a zone and where it comes from.
type version struct {
	from, zone *zone.Zone
	names      []string
}

// job is a zone to be signed.
type job struct {
	origin string
	// former is the version that is answered until then, or nil.
	former *zone.Zone
	// names is how many may have to be signed.
	names  int
	signer Signer
	sign   func(context.Context) (version, error)
}

// names is how many of all zones may have to be signed.
func (t *turn) names() (n int) {
	for _, j := range t.jobs {
		n += j.names
	}
	return n
}

// change makes the next versions out of the present ones. It returns nil if they have to be built anew.
func (p *Publisher) change(s *state.Snapshot, serial uint32) (*turn, error) {
	view := p.view
	if view == nil {
		return nil, nil
	}
	rows, ok := p.cfg.State.Changes(p.at, s)
	if ok && len(rows) == 0 && serial == p.serial && view.layout.holds(s, p.cfg.Zones) {
		return &turn{same: true}, nil
	}
	// Below that level not every change of what is published is a change of names.
	if !ok || !s.NamesLevel() {
		return nil, nil
	}
	// Until the changes are made, the view is neither here nor there.
	p.view = nil
	tracker, ok := view.track(s, rows)
	if !ok {
		return nil, nil
	}
	changes := tracker.changes(p.zones)
	view.rest()
	if len(changes) == 0 && serial == p.serial {
		p.view = view
		return &turn{same: true}, nil
	}
	t := &turn{versions: make(map[string]version, len(p.zones))}
	for origin, from := range p.zones {
		if from.Mode() == zone.Presigned {
			p.resign(t, s, origin, from, serial, changes[origin])
			continue
		}
		v, err := advance(from, serial, changes[origin])
		if err != nil {
			return nil, err
		}
		t.versions[origin] = v
	}
	p.view = view
	return t, nil
}

// resign adds the next version of a signed zone to a turn.
func (p *Publisher) resign(t *turn, s *state.Snapshot, origin string, from *zone.Zone, serial uint32, changes []zone.Change) {
	signer, err := p.cfg.Zones.Signing.Signer(s, origin)
	if err != nil {
		p.leave(origin, err)
		return
	}
	names := len(changes)
	// Another signer has other keys or another time.
	if p.signers[origin] != signer {
		names = from.Len()
	}
	t.jobs = append(t.jobs, job{origin: origin, former: from, names: names, signer: signer, sign: func(ctx context.Context) (version, error) {
		signed, err := signer.Sign(ctx, from, serial, changes)
		if err != nil {
			return version{}, err
		}
		return advance(from, serial, signed)
	}})
}

func advance(from *zone.Zone, serial uint32, changes []zone.Change) (version, error) {
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
func (p *Publisher) build(s *state.Snapshot) (*turn, error) {
	view := newView(s, p.cfg.Zones)
	t := &turn{versions: make(map[string]version, len(view.layout.zones))}
	for _, c := range view.plan() {
		z, err := zone.Build(c)
		if err != nil {
			return nil, fmt.Errorf("cannot build zone %s: %w", c.Origin, err)
		}
		if c.Mode == zone.Presigned {
			p.sign(t, s, c.Origin, z)
			continue
		}
		t.versions[c.Origin] = version{from: p.zones[c.Origin], zone: z}
	}
	// Only what is to be signed can fail.
	unsigned := func(origin string) bool {
		z := view.layout.zones[origin]
		return z == nil || z.signing != zone.Presigned
	}
	maps.DeleteFunc(p.failed, func(origin string, _ bool) bool { return unsigned(origin) })
	maps.DeleteFunc(p.signers, func(origin string, _ Signer) bool { return unsigned(origin) })
	view.rest()
	p.view = view
	return t, nil
}

// sign adds a zone that was built to a turn, signed.
func (p *Publisher) sign(t *turn, s *state.Snapshot, origin string, plain *zone.Zone) {
	signer, err := p.cfg.Zones.Signing.Signer(s, origin)
	if err != nil {
		p.leave(origin, err)
		return
	}
	former := p.zones[origin]
	t.jobs = append(t.jobs, job{origin: origin, former: former, names: plain.Len(), signer: signer, sign: func(ctx context.Context) (version, error) {
		changes, err := signer.SignAll(ctx, plain, former)
		if err != nil {
			return version{}, err
		}
		signed, err := plain.With(plain.Serial(), changes)
		return version{from: former, zone: signed}, err
	}})
}
