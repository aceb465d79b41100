package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/seal"
	"github.com/provisionr/provisionr/server/state"
)

// keyed is a cluster whose members share one state; each has a sealing key of its own.
type keyed struct {
	oneLog
	keys    map[string]*seal.MemberKey
	cas     map[string]*ca.CA
	servers []string
	leader  string
	// changes counts the commands that were to change the data key.
	changes int
}

// newKeyed begins a cluster with the members a, b and c, of which the first has the data key.
func newKeyed(t *testing.T) *keyed {
	t.Helper()
	store := state.New()
	k := &keyed{
		oneLog: oneLog{t: t, store: store, fsm: fsm.New(store, fsm.Level, slog.New(slog.DiscardHandler))},
		keys:   map[string]*seal.MemberKey{}, cas: map[string]*ca.CA{}, leader: "a",
	}
	for _, name := range []string{"a", "b", "c"} {
		key, err := seal.NewMemberKey()
		if err != nil {
			t.Fatal(err)
		}
		k.keys[name], k.servers = key, append(k.servers, name)
		k.cas[name] = k.authority(name, key)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	material, err := ca.Bootstrap(ca.BootstrapConfig{
		Cluster: &provisionrv1.Cluster{Name: "test", FeatureLevel: fsm.Level, DefaultZone: "default"},
		Objects: []*provisionrv1.Object{{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
			Metadata: &provisionrv1.Metadata{Name: "default"}, Spec: &provisionrv1.ZoneSpec{Domain: "provisionr.internal"},
		}}}},
		Member: k.record("a"), ServerKey: key.Public(), Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range material.Commands {
		k.commit(cmd)
	}
	for _, name := range []string{"b", "c"} {
		k.commit(&raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: k.record(name)}}})
	}
	return k
}

func (k *keyed) authority(name string, key *seal.MemberKey) *ca.CA {
	a, err := ca.New(ca.Config{State: func() ca.Records { return k.store.Read() }, Member: name, Key: key})
	if err != nil {
		k.t.Fatal(err)
	}
	return a
}

func (k *keyed) record(name string) *provisionrv1.Member {
	return &provisionrv1.Member{
		Metadata: &provisionrv1.Metadata{Name: name}, RaftAddress: name + ":1", SealingKey: k.keys[name].Public(), FeatureLevel: fsm.Level,
	}
}

func (k *keyed) Servers() []string { return k.servers }

func (k *keyed) Leader() string { return k.leader }

func (k *keyed) Do(ctx context.Context, caller *provisionrv1.Caller, id string, cmd *raftlogv1.Command) (*provisionrv1.Version, error) {
	if cmd.GetPutSealedKey() != nil {
		k.mu.Lock()
		k.changes++
		k.mu.Unlock()
	}
	return k.oneLog.Do(ctx, caller, id, cmd)
}

func (k *keyed) commit(commands ...*raftlogv1.Command) {
	k.t.Helper()
	for _, cmd := range commands {
		if _, err := k.Do(k.t.Context(), &provisionrv1.Caller{Name: "test"}, rand.Text(), cmd); err != nil {
			k.t.Fatal(err)
		}
	}
}

// run has all members see to the data key until the test ends.
func (k *keyed) run() {
	for _, name := range k.servers {
		d := &dataKey{self: name, store: k.store, raft: k, ca: k.cas[name], log: slog.New(slog.DiscardHandler), caller: &provisionrv1.Caller{Name: name, Kind: "server"}}
		ctx, cancel := context.WithCancel(k.t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := d.run(ctx); err != nil {
				k.t.Error(err)
			}
		}()
		k.t.Cleanup(func() { cancel(); <-ended })
	}
}

// after passes time.
func (k *keyed) after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// opens says who can issue, which takes the data key.
func (k *keyed) opens(want ...string) {
	k.t.Helper()
	var can []string
	for _, name := range []string{"a", "b", "c"} {
		key, err := pki.NewKey()
		if err != nil {
			k.t.Fatal(err)
		}
		if _, err := k.cas[name].IssueServer("x", key.Public(), nil); err == nil {
			can = append(can, name)
		}
	}
	if !slices.Equal(can, want) {
		k.t.Errorf("%v can issue, not %v", can, want)
	}
}

// events are those of a reason.
func (k *keyed) events(reason string) (messages []string) {
	for e := range k.store.Read().Events(0) {
		if e.GetReason() == reason {
			messages = append(messages, e.GetMessage())
		}
	}
	return messages
}

func (k *keyed) expect(reason string, words ...string) {
	k.t.Helper()
	got := k.events(reason)
	ok := len(got) == len(words)
	for i := 0; ok && i < len(got); i++ {
		ok = strings.Contains(got[i], words[i])
	}
	if !ok {
		k.t.Errorf("events %s: %q, want %q", reason, got, words)
	}
}

func TestDataKey(t *testing.T) {
	for name, test := range map[string]func(k *keyed){
		"the leader wraps": func(k *keyed) {
			k.run()
			k.after(keySettle / 2)
			k.opens("a")
			k.after(keySettle)
			k.opens("a", "b", "c")
			k.after(time.Hour)
			if k.changes != 3 {
				k.t.Errorf("the data key was changed %d times, not when it began and twice", k.changes)
			}
			k.expect("DataKeyWrapped", "server a wrapped the data key for server b", "server a wrapped the data key for server c")
			k.expect("DataKeyFault")
		},
		"another wraps for the leader": func(k *keyed) {
			k.leader = "c"
			k.run()
			k.after(2 * keySettle)
			k.opens("a", "b", "c")
		},
		"one that has it cannot open it": func(k *keyed) {
			k.commit(k.must(k.cas["a"].Admit("b", k.keys["b"].Public())))
			stolen, err := seal.NewMemberKey()
			if err != nil {
				k.t.Fatal(err)
			}
			k.cas["a"] = k.authority("a", stolen)
			k.run()
			k.after(time.Minute)
			k.opens("b", "c")
			k.expect("DataKeyFault", "server a cannot mend it: cannot unwrap data key")
			k.expect("DataKeyWrapped", "server b wrapped the data key for server c")
		},
		"a member that is no server of raft": func(k *keyed) {
			k.servers = []string{"a", "b"}
			k.run()
			k.after(time.Minute)
			k.opens("a", "b")
		},
		"a removal under way": func(k *keyed) {
			k.run()
			k.after(time.Minute)
			commands, err := k.cas["b"].Evict("c")
			if err != nil {
				k.t.Fatal(err)
			}
			k.commit(commands...)
			k.after(keySettle / 2)
			k.commit(&raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: "c"}}})
			k.after(time.Hour)
			k.opens("a", "b")
			k.expect("DataKeyReplaced")
		},
		"a removed member knows it": func(k *keyed) {
			k.run()
			k.after(time.Minute)
			k.commit(&raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: "c"}}})
			k.after(time.Minute)
			k.opens("a", "b")
			k.expect("DataKeyReplaced", "is known to c")
			if key := k.store.Read().SealedKey(); key.GetNewest() != 2 || key.GetOldest() != 2 {
				k.t.Errorf("data keys %d to %d", key.GetOldest(), key.GetNewest())
			}
		},
		"an exchange that was cut off": func(k *keyed) {
			commands, err := k.cas["a"].Evict("")
			if err != nil {
				k.t.Fatal(err)
			}
			k.commit(commands[0])
			k.run()
			k.after(time.Minute)
			k.opens("a", "b", "c")
			k.expect("DataKeyReplaced", "cut off")
			if key := k.store.Read().SealedKey(); key.GetNewest() != key.GetOldest() {
				k.t.Errorf("data keys %d to %d", key.GetOldest(), key.GetNewest())
			}
		},
		"nobody has it": func(k *keyed) {
			key := proto.CloneOf(k.store.Read().SealedKey())
			key.Version, key.Wrapped = key.Version+1, nil
			k.commit(&raftlogv1.Command{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{Key: key}}})
			k.run()
			k.after(time.Hour)
			k.opens()
			k.expect("DataKeyFault", "no server has the data key")
		},
		"one whose sealing key is broken": func(k *keyed) {
			broken := k.record("b")
			broken.SealingKey = []byte("broken")
			k.commit(&raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: broken}}})
			k.run()
			k.after(24 * time.Hour)
			k.opens("a", "c")
			k.expect("DataKeyFault", "server a cannot mend it", "server c cannot mend it")
			k.commit(&raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: k.record("b")}}})
			k.after(2 * maxKeyPause)
			k.opens("a", "b", "c")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(newKeyed(t)) })
		})
	}
}

func (k *keyed) must(cmd *raftlogv1.Command, err error) *raftlogv1.Command {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
	return cmd
}

// TestKeyTurn: each that has the key has a turn of its own, the leader the first.
func TestKeyTurn(t *testing.T) {
	f := keyFaults{able: []string{"a", "b", "d"}}
	for leader, want := range map[string]string{"a": "0 1 -1 2", "b": "1 0 -1 2", "c": "0 1 -1 2", "d": "1 2 -1 0", "": "0 1 -1 2"} {
		var got []string
		for _, self := range []string{"a", "b", "c", "d"} {
			got = append(got, fmt.Sprint(f.turn(self, leader)))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("leader %q: turns %s, want %s", leader, text, want)
		}
	}
}
