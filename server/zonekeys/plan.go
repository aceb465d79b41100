package zonekeys

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// parents is the longest that parents let their DS records be remembered.
	parents = 48 * time.Hour
	// grace is how long the keys of a zone are kept that is not signed any more: who turns it on again meanwhile has the key
	// whose DS record the parent has.
	grace = 48 * time.Hour
	// unknownTTL stands for that of a zone that is not signed any more: the largest that a zone can have.
	unknownTTL = 24 * time.Hour
)

// plan is what there is to do, in order, and when to look again; a zero time stands for no known one.
type plan struct {
	// make are origins that need their first key.
	make     []string
	commands []*raftlogv1.Command
	next     time.Time
}

func (p *plan) at(t time.Time) {
	if p.next.IsZero() || t.Before(p.next) {
		p.next = t
	}
}

// planOf decides what the keys need at a time. Unsigned has since when an origin with keys was seen not to be signed; it is
// brought up to date.
func planOf(s *state.Snapshot, now time.Time, unsigned map[string]time.Time) (p plan) {
	if !s.NamesLevel() {
		return p
	}
	signed := map[string]dnszone.SignedZone{}
	for _, z := range dnszone.Signed(s) {
		signed[z.Origin] = z
		delete(unsigned, z.Origin)
		if s.ActiveZoneKey(z.Origin) == nil {
			p.make = append(p.make, z.Origin)
		}
	}
	with := map[string]bool{}
	for k := range s.ZoneKeys() {
		z, ok := signed[k.GetOrigin()]
		if with[k.GetOrigin()] = true; !ok {
			p.forgotten(k, now, unsigned)
			continue
		}
		switch k.GetState() {
		case state.KeyActive:
			p.sign(k, z.Mode, now)
		case state.KeyRetired:
			p.remove(k, goesAt(k, z.TTL), now)
		}
	}
	for origin := range unsigned {
		if !with[origin] {
			delete(unsigned, origin)
		}
	}
	return p
}

// goesAt is when a retired key is not needed any more.
func goesAt(k *provisionrv1.ZoneKey, ttl time.Duration) time.Time {
	return k.GetSince().AsTime().Add(dnssec.Timing{TTL: ttl, DS: parents}.Retire())
}

// sign moves the signing time of a zone on. Where signatures are made when asked for, it only must not be too old for the zone
// to be signed otherwise.
func (p *plan) sign(k *provisionrv1.ZoneKey, mode zone.Signing, now time.Time) {
	signed := k.GetSigned().AsTime()
	step := dnssec.Tick
	if mode == zone.Online {
		step = dnssec.Interval
	}
	// A time from the future is one of a clock that was set since.
	if due := signed.Truncate(dnssec.Tick).Add(step); now.Before(due) && signed.Before(now.Add(dnssec.Tick)) {
		p.at(due)
		return
	}
	again := proto.CloneOf(k)
	again.Signed = timestamppb.New(now)
	p.commands = append(p.commands, put(again))
}

func (p *plan) forgotten(k *provisionrv1.ZoneKey, now time.Time, unsigned map[string]time.Time) {
	since, seen := unsigned[k.GetOrigin()]
	if !seen {
		since = now
		unsigned[k.GetOrigin()] = now
	}
	p.remove(k, since.Add(grace), now)
}

func (p *plan) remove(k *provisionrv1.ZoneKey, after, now time.Time) {
	if now.Before(after) {
		p.at(after)
		return
	}
	p.commands = append(p.commands, &raftlogv1.Command{Kind: &raftlogv1.Command_RemoveZoneKey{
		RemoveZoneKey: &raftlogv1.RemoveZoneKey{Name: k.GetMetadata().GetName()},
	}})
}
