package zonekeys

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// Roll returns the command that publishes a new key of an origin. It is refused, when it is applied, where one is published
// already: so a request that is repeated has its first result.
func (k *Keeper) Roll(s *state.Snapshot, origin string) (*raftlogv1.Command, error) {
	origin = plain(origin)
	if s.ActiveZoneKey(origin) == nil {
		return nil, noKeys(s, origin)
	}
	return k.generate(s, origin, state.KeyPublished, k.cfg.Now())
}

// Activate returns the command that has a published key sign. A key that some resolver cannot know yet is refused.
func (k *Keeper) Activate(s *state.Snapshot, origin string, tag uint32) (*raftlogv1.Command, error) {
	origin = plain(origin)
	row := s.ZoneKey(state.ZoneKeyName(origin, tag))
	if row == nil {
		if s.ActiveZoneKey(origin) == nil {
			return nil, noKeys(s, origin)
		}
		return nil, errs.New(errs.NotFound, "zone %s has no key %d", origin, tag).WithHint("see provisionr dns keys")
	}
	again := proto.CloneOf(row)
	switch now := k.cfg.Now(); row.GetState() {
	case state.KeyActive:
	case state.KeyPublished:
		if ready := readyAt(row, ttls(s)); now.Before(ready) {
			return nil, errs.New(errs.Conflict, "key %d of zone %s is too new: resolvers may not know it before %s", tag, origin, text(ready)).
				WithHint("wait for it: signatures that a resolver cannot check make the zone unreachable")
		}
		again.State, again.Signed = state.KeyActive, timestamppb.New(now)
	default:
		return nil, errs.New(errs.Conflict, "key %d of zone %s is %s: it does not come back", tag, origin, row.GetState()).
			WithHint("make a new one: provisionr dns roll %s", origin)
	}
	return put(again), nil
}

func noKeys(s *state.Snapshot, origin string) error {
	for _, z := range dnszone.Signed(s) {
		if z.Origin == origin {
			return errs.New(errs.Unavailable, "zone %s has no key yet", origin).WithHint("its first one is made within seconds, once all servers have this version")
		}
	}
	return errs.New(errs.NotFound, "zone %s is not signed", origin).WithHint("set spec.dnssec of its Zone; reverse zones follow the default zone")
}

// List returns the keys of an origin, or of all for an empty one, without their private parts.
func (k *Keeper) List(s *state.Snapshot, origin string) []*provisionrv1.ZoneKeyInfo {
	var out []*provisionrv1.ZoneKeyInfo
	origin = plain(origin)
	signed, now := ttls(s), k.cfg.Now()
	for row := range s.ZoneKeys() {
		if origin != "" && row.GetOrigin() != origin {
			continue
		}
		info := &provisionrv1.ZoneKeyInfo{
			Origin: row.GetOrigin(), Tag: row.GetTag(), State: row.GetState(), Since: row.GetSince(), Next: next(row, signed, now),
		}
		if key, err := dnssec.Public(row.GetOrigin(), row.GetPublicKey()); err == nil {
			info.Ds, info.Dnskey = key.DSText(), key.DNSKEYText()
		}
		out = append(out, info)
	}
	return out
}

// ttls are those of the zones that are to be signed, by origin.
func ttls(s *state.Snapshot) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, z := range dnszone.Signed(s) {
		out[z.Origin] = z.TTL
	}
	return out
}

// readyAt is when every resolver can know a published key.
func readyAt(row *provisionrv1.ZoneKey, signed map[string]time.Duration) time.Time {
	ttl, ok := signed[row.GetOrigin()]
	if !ok {
		ttl = unknownTTL
	}
	return row.GetSince().AsTime().Add(dnssec.Timing{TTL: ttl}.Publish())
}

// next says what happens to a key next.
func next(row *provisionrv1.ZoneKey, signed map[string]time.Duration, now time.Time) string {
	ttl, ok := signed[row.GetOrigin()]
	if !ok {
		return "its zone is not signed any more: it is removed after two days"
	}
	switch row.GetState() {
	case state.KeyPublished:
		activate := fmt.Sprintf("provisionr dns activate %s %d", row.GetOrigin(), row.GetTag())
		if ready := readyAt(row, signed); now.Before(ready) {
			return fmt.Sprintf("add its DS record to the parent zone; not before %s: %s", text(ready), activate)
		}
		return "when the parent zone has its DS record: " + activate
	case state.KeyActive:
		return "signs"
	case state.KeyRetired:
		return fmt.Sprintf("remove its DS record from the parent zone; it is removed after %s", text(goesAt(row, ttl)))
	}
	return ""
}

// text writes a time to the minute, which is not before it.
func text(t time.Time) string {
	return t.Add(time.Minute - 1).Truncate(time.Minute).UTC().Format("2006-01-02 15:04 MST")
}
