package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

const origin = "provisionr.internal"

func zoneKey(of string, tag uint32, in string) *provisionrv1.ZoneKey {
	return &provisionrv1.ZoneKey{
		Metadata: &provisionrv1.Metadata{Name: state.ZoneKeyName(of, tag)}, Origin: of, Tag: tag, State: in,
		PublicKey: bytes.Repeat([]byte{byte(tag)}, publicKeySize), Ciphertext: []byte("old"), KeyVersion: 1,
	}
}

func putZoneKey(k *provisionrv1.ZoneKey) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutZoneKey{PutZoneKey: &raftlogv1.PutZoneKey{Key: k}}}
}

func removeZoneKey(name string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_RemoveZoneKey{RemoveZoneKey: &raftlogv1.RemoveZoneKey{Name: name}}}
}

func signedZone(mode string) *raftlogv1.Command {
	o := zone("default", origin)
	o.GetZone().Spec.Dnssec = mode
	return put(o)
}

func (w *world) keyStates(of string) string {
	text := ""
	for k := range w.store.Read().ZoneKeysOf(of) {
		text += fmt.Sprintf("%d %s;", k.GetTag(), k.GetState())
	}
	return text
}

func TestZoneKeyLife(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	w.must(signedZone("presigned"))
	w.refuse(errs.Conflict, putZoneKey(zoneKey(origin, 7, state.KeyPublished)))
	w.refuse(errs.Invalid, putZoneKey(zoneKey(origin, 7, state.KeyRetired)))
	before := w.store.Read().Cluster().GetZoneIndex()
	w.must(putZoneKey(zoneKey(origin, 7, state.KeyActive)))
	if after := w.store.Read().Cluster().GetZoneIndex(); after <= before {
		t.Errorf("the zones' serial stays at %d", after)
	}
	w.refuse(errs.Conflict, putZoneKey(zoneKey(origin, 8, state.KeyActive)))
	w.must(putZoneKey(zoneKey(origin, 8, state.KeyPublished)))
	w.refuse(errs.Conflict, putZoneKey(zoneKey(origin, 9, state.KeyPublished)))
	w.refuse(errs.Conflict, removeZoneKey(origin+"/7"))
	w.refuse(errs.Conflict, removeZoneKey(origin+"/8"))
	w.must(putZoneKey(zoneKey(origin, 8, state.KeyActive)))
	if got := w.keyStates(origin); got != "7 retired;8 active;" {
		t.Fatalf("keys %s", got)
	}
	key := w.store.Read().ZoneKey(origin + "/8")
	if !key.GetSigned().AsTime().Equal(key.GetSince().AsTime()) || key.GetSince().AsTime().Before(start) {
		t.Errorf("signed %v, active since %v", key.GetSigned().AsTime(), key.GetSince().AsTime())
	}
	if e := w.lastEvent(); e.GetReason() != "ZoneKeyChanged" || e.GetMessage() != "key 8 of zone provisionr.internal is active" {
		t.Errorf("event %v", e)
	}
	w.refuse(errs.Conflict, putZoneKey(zoneKey(origin, 7, state.KeyActive)))
	w.refuse(errs.Conflict, putZoneKey(zoneKey(origin, 8, state.KeyRetired)))
	w.must(removeZoneKey(origin + "/7"))
	w.refuse(errs.NotFound, removeZoneKey(origin+"/7"))
	w.must(signedZone("off"))
	w.must(removeZoneKey(origin + "/8"))
	if got := w.keyStates(origin); got != "" {
		t.Errorf("keys %s", got)
	}
}

func TestZoneKeyRefused(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	for what, change := range map[string]func(*provisionrv1.ZoneKey){
		"another name":   func(k *provisionrv1.ZoneKey) { k.Metadata.Name = "x/7" },
		"a final dot":    func(k *provisionrv1.ZoneKey) { k.Origin += "."; k.Metadata.Name = k.Origin + "/7" },
		"a large tag":    func(k *provisionrv1.ZoneKey) { k.Tag = 1 << 16; k.Metadata.Name = state.ZoneKeyName(origin, k.Tag) },
		"a short key":    func(k *provisionrv1.ZoneKey) { k.PublicKey = k.PublicKey[1:] },
		"no private key": func(k *provisionrv1.ZoneKey) { k.Ciphertext = nil },
		"a long one":     func(k *provisionrv1.ZoneKey) { k.Ciphertext = make([]byte, maxKeyCiphertext+1) },
		"no state":       func(k *provisionrv1.ZoneKey) { k.State = "" },
		"the future":     func(k *provisionrv1.ZoneKey) { k.Signed = timestamppb.New(start.Add(48 * time.Hour)) },
	} {
		k := zoneKey(origin, 7, state.KeyActive)
		change(k)
		if r := w.apply(putZoneKey(k)); r[0].Err == nil || r[0].Err.Kind != errs.Invalid {
			t.Errorf("%s: %v", what, r[0].Err)
		}
	}
	other := zoneKey(origin, 7, state.KeyActive)
	other.KeyVersion = 2
	w.refuse(errs.Conflict, putZoneKey(other))
	w.must(putZoneKey(zoneKey("64/26.0.0.10.in-addr.arpa", 7, state.KeyActive)))
	if got := w.keyStates("64/26.0.0.10.in-addr.arpa"); got != "7 active;" {
		t.Errorf("keys %s", got)
	}
	same := zoneKey("64/26.0.0.10.in-addr.arpa", 7, state.KeyActive)
	same.PublicKey[0]++
	w.refuse(errs.Conflict, putZoneKey(same))
}

func TestZoneKeysBelowTheirLevel(t *testing.T) {
	w := newWorld(t)
	c := initCommand()
	c.GetInitCluster().Cluster.FeatureLevel = state.LevelNames - 1
	w.must(c)
	w.refuse(errs.Unsupported, putZoneKey(zoneKey(origin, 7, state.KeyActive)))
	w.refuse(errs.Unsupported, removeZoneKey(origin+"/7"))
	reseal := putKey(2, 1, 2)
	reseal.GetPutSealedKey().ZoneKeys = []*provisionrv1.ZoneKey{zoneKey(origin, 7, state.KeyActive)}
	w.refuse(errs.Unsupported, reseal)
	for _, c := range []*raftlogv1.Command{putZoneKey(nil), removeZoneKey("x"), reseal} {
		if Needs(c) != state.LevelNames {
			t.Errorf("%v needs level %d", c, Needs(c))
		}
	}
}

func TestSigningAgain(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	w.must(putZoneKey(zoneKey(origin, 7, state.KeyActive)))
	index, events := w.store.Read().Cluster().GetZoneIndex(), len(slices.Collect(w.store.Read().Events(0)))
	again := zoneKey(origin, 7, state.KeyActive)
	again.Ciphertext, again.Signed = []byte("changed"), timestamppb.New(start.Add(time.Hour))
	since := w.store.Read().ZoneKey(origin + "/7").GetSince().AsTime()
	w.must(putZoneKey(again))
	got := w.store.Read().ZoneKey(origin + "/7")
	if !got.GetSigned().AsTime().Equal(start.Add(time.Hour)) || !got.GetSince().AsTime().Equal(since) || string(got.GetCiphertext()) != "old" {
		t.Errorf("key %v", got)
	}
	if w.store.Read().Cluster().GetZoneIndex() <= index || len(slices.Collect(w.store.Read().Events(0))) != events {
		t.Error("signing anew changes the serial, and is no event")
	}
}

func TestDataKeyLeavesNoZoneKeyBehind(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	w.must(putZoneKey(zoneKey(origin, 7, state.KeyActive)))
	w.refuse(errs.Conflict, putKey(2, 2, 2))
	with := func(version, oldest uint64, tag uint32, keyVersion uint64) *raftlogv1.Command {
		c, k := putKey(version, oldest, 2), zoneKey(origin, tag, state.KeyPublished)
		k.Ciphertext, k.KeyVersion = []byte("new"), keyVersion
		c.GetPutSealedKey().ZoneKeys = []*provisionrv1.ZoneKey{k}
		return c
	}
	w.refuse(errs.Conflict, with(2, 1, 8, 2))
	w.refuse(errs.Invalid, with(2, 1, 7, 1))
	w.must(with(2, 1, 7, 2))
	w.must(putKey(3, 2, 2))
	if got := w.store.Read().ZoneKey(origin + "/7"); string(got.GetCiphertext()) != "new" || got.GetKeyVersion() != 2 || got.GetState() != state.KeyActive {
		t.Errorf("key %v", got)
	}
	before := w.snapshot()
	if err := w.fsm.Restore(bytes.NewReader(before)); err != nil || !bytes.Equal(before, w.snapshot()) || w.keyStates(origin) != "7 active;" {
		t.Errorf("restored: %v, keys %s", err, w.keyStates(origin))
	}
}

func TestSecretOfATransferKey(t *testing.T) {
	w := initialised(t)
	w.must(putKey(1, 1, 1))
	w.must(putSecret(secret("tsig", 1, 1, "one")))
	o := zone("default", origin)
	o.GetZone().Spec.Transfer = &provisionrv1.ZoneTransfer{Keys: []*provisionrv1.TransferKey{{Name: "ns2", Secret: "tsig"}}}
	w.must(put(o))
	w.refuse(errs.Conflict, remove("secrets", "tsig"))
	w.must(put(zone("default", origin)))
	w.must(remove("secrets", "tsig"))
}

// Below their level transfer keys hold no secret: members of the version before do not know of them.
func TestSecretOfATransferKeyBelowItsLevel(t *testing.T) {
	w := newWorld(t)
	c := initCommand()
	c.GetInitCluster().Cluster.FeatureLevel = state.LevelNames - 1
	w.must(c)
	w.must(putKey(1, 1, 1))
	w.must(putSecret(secret("tsig", 1, 1, "one")))
	o := zone("default", origin)
	o.GetZone().Spec.Transfer = &provisionrv1.ZoneTransfer{Keys: []*provisionrv1.TransferKey{{Name: "ns2", Secret: "tsig"}}}
	w.must(put(o))
	w.must(remove("secrets", "tsig"))
}

// Whatever is asked for, an origin with keys has one active key and at most one published one, and the serial never stays
// behind a change.
func TestZoneKeyStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := initialised(t)
		w.must(putKey(1, 1, 1))
		w.must(signedZone("presigned"))
		states := []string{state.KeyPublished, state.KeyActive, state.KeyRetired}
		for range rapid.IntRange(1, 25).Draw(t, "commands") {
			tag := rapid.Uint32Range(1, 7).Draw(t, "tag")
			before, index := w.keyStates(origin), w.store.Read().Cluster().GetZoneIndex()
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				w.apply(removeZoneKey(state.ZoneKeyName(origin, tag)))
			} else {
				w.apply(putZoneKey(zoneKey(origin, tag, rapid.SampledFrom(states).Draw(t, "state"))))
			}
			active, published, all := 0, 0, 0
			for k := range w.store.Read().ZoneKeysOf(origin) {
				all++
				switch k.GetState() {
				case state.KeyActive:
					active++
				case state.KeyPublished:
					published++
				}
			}
			if active > 1 || published > 1 || all > maxKeysOf || all > 0 && active == 0 {
				t.Fatalf("keys %s, before %s", w.keyStates(origin), before)
			}
			if before != w.keyStates(origin) && w.store.Read().Cluster().GetZoneIndex() == index {
				t.Fatalf("keys went from %s to %s within one serial", before, w.keyStates(origin))
			}
		}
	})
}
