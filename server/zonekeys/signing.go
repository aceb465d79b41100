package zonekeys

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/zone"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

var _ dnszone.Signing = (*Keeper)(nil)

// signer is a zone's signer and the rows that it was made of: a row that changes is another one.
type signer struct {
	rows []*provisionrv1.ZoneKey
	*dnssec.Signer
}

// Mode implements dnszone.Signing: a zone without an active key is not signed.
func (k *Keeper) Mode(s *state.Snapshot, origin string, wanted zone.Signing) zone.Signing {
	if !s.NamesLevel() || s.ActiveZoneKey(plain(origin)) == nil {
		return zone.Unsigned
	}
	return wanted
}

// Signer implements dnszone.Signing.
func (k *Keeper) Signer(s *state.Snapshot, origin string) (dnszone.Signer, error) {
	origin = plain(origin)
	rows := keysOf(s, origin)
	k.mu.Lock()
	defer k.mu.Unlock()
	if present := k.signers[origin]; present.Signer != nil && slices.Equal(present.rows, rows) {
		return present.Signer, nil
	}
	states, err := k.open(s, rows)
	if err != nil {
		return nil, err
	}
	made, err := dnssec.New(dnssec.Config{
		Keys: states, Signed: s.ActiveZoneKey(origin).GetSigned().AsTime(), Progress: k.progress(origin),
	})
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot sign zone %s: %w", origin, err)
	}
	k.signers[origin] = signer{rows, made}
	return made, nil
}

// progress tells of the signing of large zones, a quarter at a time.
func (k *Keeper) progress(origin string) func(done, total int) {
	var told atomic.Int64
	return func(done, total int) {
		quarter := int64(4 * done / max(total, 1))
		if before := told.Load(); quarter != before && told.CompareAndSwap(before, quarter) {
			k.cfg.Logger.Info("signing dns zone", "zone", origin, "names", done, "of", total)
		}
	}
}

// Keys implements dnszone.Signing. It needs no private keys.
func (k *Keeper) Keys(s *state.Snapshot, origin string) []zone.Record {
	origin = plain(origin)
	var states []dnssec.KeyState
	for _, row := range keysOf(s, origin) {
		st, err := dnssec.ParseState(row.GetState())
		if err != nil {
			continue
		}
		if key, err := dnssec.Public(origin, row.GetPublicKey()); err == nil {
			states = append(states, dnssec.KeyState{Key: key, State: st})
		}
	}
	return dnssec.KeyRecords(origin, states)
}

// open returns the keys of rows with their private parts. The mutex is held.
func (k *Keeper) open(s *state.Snapshot, rows []*provisionrv1.ZoneKey) ([]dnssec.KeyState, error) {
	states := make([]dnssec.KeyState, 0, len(rows))
	for _, row := range rows {
		st, err := dnssec.ParseState(row.GetState())
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot use zone key %s: %w", row.GetMetadata().GetName(), err)
		}
		key, err := k.openOne(s, row)
		if err != nil {
			return nil, err
		}
		states = append(states, dnssec.KeyState{Key: key, State: st})
	}
	return states, nil
}

func (k *Keeper) openOne(s *state.Snapshot, row *provisionrv1.ZoneKey) (*dnssec.Key, error) {
	name := row.GetMetadata().GetName()
	if key := k.opened[name]; key != nil && bytes.Equal(key.Public(), row.GetPublicKey()) {
		return key, nil
	}
	private, err := k.cfg.Sealer.OpenZoneKey(row)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	key, err := dnssec.Parse(row.GetOrigin(), private)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot use zone key %s: %w", name, err)
	}
	if !bytes.Equal(key.Public(), row.GetPublicKey()) {
		return nil, errs.New(errs.Internal, "cannot use zone key %s: its private part is another key's", name)
	}
	if len(k.opened) >= k.pruneAt {
		k.prune(s)
	}
	k.opened[name] = key
	return key, nil
}

// prune lets go of what belongs to keys that are removed.
func (k *Keeper) prune(s *state.Snapshot) {
	for name := range k.opened {
		if s.ZoneKey(name) == nil {
			delete(k.opened, name)
		}
	}
	for origin := range k.signers {
		if s.ActiveZoneKey(origin) == nil {
			delete(k.signers, origin)
		}
	}
	k.pruneAt = 2*len(k.opened) + 64
}

// OnlineSigner signs answers when they are asked for: dnssec.Online does.
type OnlineSigner interface {
	SetKeys(keys []dnssec.KeyState) error
}

// Follow gives the keys of zones to a server that signs answers, at once and after each change, until ctx ends, which is not an
// error. While no zone is signed that way it has none. A key that cannot be opened is tried again: what opens it may come later.
func (k *Keeper) Follow(ctx context.Context, online OnlineSigner) error {
	failed := map[string]bool{}
	for {
		changed := k.cfg.State.Watch(state.TableZoneKeys, state.TableZones)
		s := k.cfg.State.Read()
		if err := online.SetKeys(k.onlineKeys(s, failed)); err != nil {
			k.cfg.Logger.Error("cannot sign answers with the present dnssec keys", "err", err)
		}
		if len(failed) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			continue
		}
		if !k.await(ctx, changed, s.SealedKey()) {
			return nil
		}
	}
}

// await returns after what failed may work: after a change, with another data key, or after a while. It reports false when
// ctx ends.
func (k *Keeper) await(ctx context.Context, changed <-chan struct{}, sealed *raftlogv1.SealedKey) bool {
	again := time.NewTimer(retry)
	defer again.Stop()
	for {
		// Every change of a name is one of the cluster, too.
		cluster := k.cfg.State.Watch(state.TableCluster)
		if k.cfg.State.Read().SealedKey() != sealed {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
			return true
		case <-again.C:
			return true
		case <-cluster:
		}
	}
}

// onlineKeys are all keys as soon as one zone is signed online: which reverse zones there are changes with networks. One zone
// whose keys cannot be opened does not keep the others' away: it is one of the failed then, which are told of once.
func (k *Keeper) onlineKeys(s *state.Snapshot, failed map[string]bool) []dnssec.KeyState {
	before := maps.Clone(failed)
	clear(failed)
	if !slices.ContainsFunc(slices.Collect(s.Zones()), func(z *provisionrv1.Zone) bool { return z.GetSpec().GetDnssec() == "online" }) {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []dnssec.KeyState
	for row := range s.ZoneKeys() {
		if row.GetState() != state.KeyActive {
			continue
		}
		states, err := k.open(s, keysOf(s, row.GetOrigin()))
		if err != nil {
			if failed[row.GetOrigin()] = true; !before[row.GetOrigin()] {
				k.cfg.Logger.Error("cannot open dnssec keys; trying again", "zone", row.GetOrigin(), "err", err)
			}
			continue
		}
		all = append(all, states...)
	}
	return all
}
