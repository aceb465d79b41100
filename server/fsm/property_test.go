package fsm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	dnsnames "github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// commands draws commands that mostly make sense, about few pools and machines so that they meet each other.
func drawCommand(t *rapid.T, s *state.Snapshot) *raftlogv1.Command {
	poolName := rapid.SampledFrom([]string{"a", "b", "a-1", "c"}).Draw(t, "pool")
	id := fmt.Sprintf("m-%d", rapid.IntRange(1, 12).Draw(t, "machine"))
	phase := s.Machine(id).GetStatus().GetPhase()
	size := uint32(rapid.IntRange(0, 4).Draw(t, "size"))
	other := fmt.Sprintf("m-%d", rapid.IntRange(1, 12).Draw(t, "other machine"))
	switch rapid.IntRange(0, 23).Draw(t, "command") {
	case 0, 1:
		p := pool(poolName, size, rapid.SliceOfN(rapid.SampledFrom([]string{"web", "b", "x", "a-2"}), 0, 2).Draw(t, "aliases")...)
		p.GetPool().Spec.Zone = rapid.SampledFrom([]string{"", "default", "other"}).Draw(t, "zone")
		p.GetPool().Spec.Network = rapid.SampledFrom([]string{"", "", "next"}).Draw(t, "network")
		return put(p)
	case 2:
		return scale(poolName, size)
	case 3:
		return remove(rapid.SampledFrom([]string{"pools", "zones", "networks", "machines"}).Draw(t, "kind"), rapid.SampledFrom([]string{poolName, id, "other", "local"}).Draw(t, "name"))
	case 4, 5, 6, 7:
		return create(id, poolName, uint32(rapid.IntRange(0, 5).Draw(t, "index")), s.Pool(poolName).GetMetadata().GetGeneration())
	case 8:
		return launch(id, s.Machine(id).GetStatus().GetAttempt()+1)
	case 9:
		return put(zone(rapid.SampledFrom([]string{"default", "other"}).Draw(t, "name"), "example.org", rapid.SampledFrom([]string{"web", "a-1", "y"}).Draw(t, "record")))
	case 10:
		return put(network(rapid.SampledFrom([]string{"local", "next"}).Draw(t, "name"), rapid.SampledFrom([]string{"10.88.0.0/29", "10.88.0.0/28", "10.89.0.0/30"}).Draw(t, "cidr")))
	case 11:
		c := move(id, provisionrv1.Phase(rapid.IntRange(0, 13).Draw(t, "to")), phase)
		c.GetSetPhase().Address = rapid.SampledFrom([]string{"", "10.88.0.2", "10.88.0.3", "10.89.0.2", "2001:db8::3", "junk"}).Draw(t, "address")
		c.GetSetPhase().Address6 = rapid.SampledFrom([]string{"", "2001:db8::2", "2001:db8::3", "10.88.0.2", "junk"}).Draw(t, "address6")
		return c
	case 12:
		return move(id, terminating, phase)
	case 13:
		return move(id, gone, phase)
	case 14:
		return &raftlogv1.Command{Kind: &raftlogv1.Command_ForgetMachine{ForgetMachine: &raftlogv1.ForgetMachine{Id: id}}}
	case 15, 16, 17:
		slot := s.Slot(fmt.Sprintf("%s-%d", poolName, rapid.IntRange(1, 4).Draw(t, "index")))
		return createHeir(id, poolName, max(1, slot.GetIndex()), s.Pool(poolName).GetMetadata().GetGeneration())
	case 18, 19, 20:
		slot := s.Slot(fmt.Sprintf("%s-%d", poolName, rapid.IntRange(1, 4).Draw(t, "index")))
		if rapid.IntRange(0, 9).Draw(t, "wrong") == 0 {
			return handOver(slot.GetMetadata().GetName(), id, other)
		}
		return handOver(slot.GetMetadata().GetName(), slot.GetHolder(), slot.GetHeir())
	case 21:
		return notice(id, rapid.SampledFrom([]*provisionrv1.Notice{nil, {Kind: "spot"}, {Kind: "maintenance", Message: "x"}}).Draw(t, "notice"))
	case 22:
		return adopt(id, rapid.SampledFrom([]string{"10.89.0.2", "10.89.0.3", "10.88.0.2", "2001:db8::2", "junk"}).Draw(t, "address"))
	case 23:
		return put(loose("next", rapid.SampledFrom([]string{"", "10.89.0.0/24"}).Draw(t, "range")))
	}
	return bind(id, 1, rapid.SampledFrom([]string{"k1", "k2"}).Draw(t, "key"))
}

// checkInvariants checks what must hold after every entry.
func checkInvariants(t *rapid.T, s *state.Snapshot) {
	holders, heirs := map[string]string{}, map[string]string{}
	for slot := range s.Slots() {
		name := slot.GetMetadata().GetName()
		if owner := s.NameOwner(s.ZoneName(s.Pool(slot.GetPool())), name); owner == nil || owner.Owner != slot.GetPool() || owner.Kind != state.OwnerSlot {
			t.Fatalf("the name of slot %s is %v", name, owner)
		}
		if slot.GetHolder() == "" {
			if slot.GetHeir() != "" {
				t.Fatalf("slot %s has the heir %s and no holder", name, slot.GetHeir())
			}
			continue
		}
		if heir := slot.GetHeir(); heir != "" {
			if heirs[heir] != "" || s.Machine(heir).GetSpec().GetSlot() != name || heir == slot.GetHolder() {
				t.Fatalf("machine %s is the heir of %s and of %s", heir, name, heirs[heir])
			}
			heirs[heir] = name
		}
		if other, twice := holders[slot.GetHolder()]; twice {
			t.Fatalf("machine %s holds %s and %s", slot.GetHolder(), other, name)
		}
		holders[slot.GetHolder()] = name
		if s.Machine(slot.GetHolder()) == nil {
			t.Fatalf("slot %s is held by %s, which does not exist", name, slot.GetHolder())
		}
	}
	addresses := map[string]string{}
	count := 0
	for m := range s.Machines() {
		count++
		id, status := m.GetMetadata().GetName(), m.GetStatus()
		if status.GetPhase() == gone {
			if holders[id] != "" || heirs[id] != "" {
				t.Fatalf("machine %s is gone and holds %s or is the heir of %s", id, holders[id], heirs[id])
			}
			continue
		}
		switch leaving := status.GetPhase() == draining || status.GetPhase() == terminating; {
		case heirs[id] == "" && holders[id] == "" && !leaving:
			t.Fatalf("machine %s is %s, and neither holder nor heir of a slot", id, state.PhaseName(status.GetPhase()))
		case holders[id] != "" && holders[id] != m.GetSpec().GetSlot():
			t.Fatalf("machine %s is for slot %s and holds %q", id, m.GetSpec().GetSlot(), holders[id])
		}
		network := m.GetSpec().GetNetwork()
		if network == "" {
			network = ownNetwork(m)
		}
		claims := 0
		for range s.ClaimsOf(id) {
			claims++
		}
		for _, address := range []string{status.GetAddress(), status.GetAddress6()} {
			if address == "" {
				continue
			}
			at := m.GetSpec().GetProvider() + "/" + m.GetSpec().GetNetwork() + "/" + address
			if other := addresses[at]; other != "" {
				t.Fatalf("machines %s and %s have the address %s", id, other, at)
			}
			addresses[at] = id
			if claim := s.Claim(network, address); claim.GetMachine() != id {
				t.Fatalf("the claim of %s by machine %s is %v", at, id, claim)
			}
			claims--
		}
		if claims != 0 {
			t.Fatalf("machine %s has %d claims beside %s and %s", id, claims, status.GetAddress(), status.GetAddress6())
		}
		if s.Pool(m.GetSpec().GetPool()) == nil {
			t.Fatalf("machine %s is %s and its pool is not there", id, state.PhaseName(status.GetPhase()))
		}
	}
	checkNames(t, s)
	if count != s.MachineCount() {
		t.Fatalf("%d machines, counted %d", count, s.MachineCount())
	}
	names := map[string]string{}
	claim := func(zone, name, owner string) {
		if other, taken := names[zone+"/"+name]; taken && other != owner {
			t.Fatalf("the name %s in zone %s is of %s and %s", name, zone, other, owner)
		}
		names[zone+"/"+name] = owner
	}
	for p := range s.Pools() {
		for n := range s.PoolNames(p) {
			claim(n.Zone, n.Name, "pool "+n.Owner)
		}
		for slot := range s.SlotsOf(p.GetMetadata().GetName()) {
			claim(s.ZoneName(p), slot.GetMetadata().GetName(), "slot "+slot.GetMetadata().GetName())
		}
	}
	for z := range s.WholeZones() {
		for n := range state.ZoneNames(z) {
			claim(n.Zone, n.Name, "zone "+n.Owner)
		}
	}
	for n, owner := range names {
		if s.NameOwner(split(n)) == nil {
			t.Fatalf("the name %s of %s is not registered", n, owner)
		}
	}
}

// checkNames checks the zones: every address has one pointer at most, and that to the name which has the address.
func checkNames(t *rapid.T, s *state.Snapshot) {
	pointers, addresses := map[string]string{}, map[string]map[string]bool{}
	for _, r := range dnszone.Records(s) {
		switch r.GetType() {
		case "PTR":
			if other := pointers[r.GetName()]; other != "" {
				t.Fatalf("%s points to %s and %s", r.GetName(), other, r.GetData())
			}
			pointers[r.GetName()] = r.GetData()
		case "A", "AAAA":
			addr := netip.MustParseAddr(r.GetData())
			if addresses[r.GetName()] == nil {
				addresses[r.GetName()] = map[string]bool{}
			}
			addresses[r.GetName()][dnsnames.ReverseName(addr)] = true
		}
	}
	for slot := range s.Slots() {
		fqdn, holder := slot.GetFqdn()+".", s.Machine(slot.GetHolder())
		if s.Zone(s.ZoneName(s.Pool(slot.GetPool()))) == nil {
			continue
		}
		owned := map[string]bool{}
		for _, addr := range dnszone.Addresses(s, holder) {
			reverse := dnsnames.ReverseName(addr)
			owned[reverse] = true
			if !addresses[fqdn][reverse] {
				t.Fatalf("%s lacks the address %s of its holder", fqdn, addr)
			}
			switch inside := s.Network(holder.GetSpec().GetNetwork()).GetSpec().GetCidr() != "" || addr.Is6(); {
			case pointers[reverse] == fqdn, pointers[reverse] == "" && !inside:
			default:
				t.Fatalf("%s points to %q, and is an address of %s", reverse, pointers[reverse], fqdn)
			}
		}
		for reverse := range addresses[fqdn] {
			if !owned[reverse] {
				t.Fatalf("%s has the address of %s, which is not its holder's", fqdn, reverse)
			}
		}
	}
}

func split(s string) (string, string) {
	before, after, _ := bytes.Cut([]byte(s), []byte("/"))
	return string(before), string(after)
}

// TestInvariants applies random logs; then the same log on another FSM, and a restored snapshot, must give equal bytes.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := initialised(t)
		for range rapid.IntRange(1, 40).Draw(t, "entries") {
			var batch []*raftlogv1.Command
			for range rapid.IntRange(1, 3).Draw(t, "batch") {
				batch = append(batch, drawCommand(t, w.store.Read()))
			}
			if r := w.apply(batch...); len(r) != len(batch) {
				t.Fatalf("%d results for %d requests: %v", len(r), len(batch), w.fatal)
			}
			checkInvariants(t, w.store.Read())
		}
		want := w.snapshot()
		other := newWorld(t)
		for i, entry := range w.log {
			other.fsm.Apply(uint64(i+1), entry)
		}
		if !bytes.Equal(want, other.snapshot()) {
			t.Fatal("the same log gives another state")
		}
		restored := newWorld(t)
		if err := restored.fsm.Restore(bytes.NewReader(want)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, restored.snapshot()) {
			t.Fatal("a restored state is saved otherwise")
		}
		checkInvariants(t, restored.store.Read())
		// The restored state goes on as the original does: what a snapshot leaves out must be derived alike.
		next := drawCommand(t, w.store.Read())
		restored.index = w.index
		w.apply(next)
		restored.apply(next)
		if !bytes.Equal(w.snapshot(), restored.snapshot()) {
			t.Fatalf("a restored state goes on otherwise after %v", next)
		}
	})
}

// TestRandomMessages applies commands filled with random values of every field: none may crash or stop the FSM.
func TestRandomMessages(t *testing.T) {
	w := initialised(t)
	w.must(put(pool("a", 3)))
	w.serving("m-1", "a", 1)
	random := rand.New(rand.NewPCG(1, 2))
	kinds := (&raftlogv1.Command{}).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range 4000 {
		c := &raftlogv1.Command{}
		fillField(random, c.ProtoReflect(), kinds.Get(i%kinds.Len()), 0)
		if set := c.GetSetFeatureLevel(); set != nil {
			set.Level %= 2
		}
		if r := w.apply(c); len(r) != 1 {
			t.Fatalf("%v stopped the FSM: %v", c, w.fatal)
		}
	}
	restored := newWorld(t)
	if err := restored.fsm.Restore(bytes.NewReader(w.snapshot())); err != nil {
		t.Fatal(err)
	}
}

func fill(random *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if random.IntN(3) > 0 && depth < 6 {
			fillField(random, m, fields.Get(i), depth)
		}
	}
}

func fillField(random *rand.Rand, m protoreflect.Message, f protoreflect.FieldDescriptor, depth int) {
	switch {
	case f.IsMap():
		value := m.NewField(f)
		if f.MapValue().Kind() == protoreflect.StringKind {
			value.Map().Set(protoreflect.ValueOfString(text(random)).MapKey(), protoreflect.ValueOfString(text(random)))
		}
		m.Set(f, value)
	case f.IsList():
		list := m.NewField(f)
		for range random.IntN(3) {
			if f.Kind() == protoreflect.MessageKind {
				fill(random, list.List().AppendMutable().Message(), depth+1)
			} else {
				list.List().Append(scalar(random, f))
			}
		}
		m.Set(f, list)
	case f.Kind() == protoreflect.MessageKind:
		fill(random, m.Mutable(f).Message(), depth+1)
	default:
		m.Set(f, scalar(random, f))
	}
}

func scalar(random *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(random))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(make([]byte, random.IntN(40)))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(random.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(random.IntN(16) - 1))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(random.IntN(4)))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(random.IntN(4)))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(random.Uint32()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(random.Uint64()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(random.Float64())
	}
	return f.Default()
}

// text is often a name that exists, sometimes none that may.
func text(random *rand.Rand) string {
	words := []string{"a", "a-1", "m-1", "m-2", "local", "default", "admin", "pools", "machines", "10.88.0.3", "10.90.0.0/24", "ff00::/8",
		"example.org", "", "-", "a\x00b", "\u00e9", "x.y..z", "provisionr.internal", "active"}
	return words[random.IntN(len(words))]
}

// FuzzApply applies random bytes as a log entry.
func FuzzApply(f *testing.F) {
	w := initialised(f)
	w.must(put(pool("a", 2)))
	w.serving("m-1", "a", 1)
	for _, entry := range w.log {
		f.Add(entry)
	}
	f.Add([]byte{0xff})
	base := w.snapshot()
	f.Fuzz(func(t *testing.T, entry []byte) {
		w := newWorld(t)
		if err := w.fsm.Restore(bytes.NewReader(base)); err != nil {
			t.Fatal(err)
		}
		results := w.fsm.Apply(100, entry)
		if w.fatal != nil {
			if results != nil {
				t.Fatal("a stopped FSM answers")
			}
			if bytes.Contains([]byte(w.fatal.Error()), []byte("cannot apply log entry")) {
				t.Fatalf("a defect: %v", w.fatal)
			}
			return
		}
		decoded := &raftlogv1.Entry{}
		if err := proto.Unmarshal(entry, decoded); err != nil || len(results) != len(decoded.GetRequests()) {
			t.Fatalf("%d results for %d requests, %v", len(results), len(decoded.GetRequests()), err)
		}
		again := newWorld(t)
		if err := again.fsm.Restore(bytes.NewReader(w.snapshot())); err != nil {
			t.Fatalf("the snapshot after the entry does not restore: %v", err)
		}
	})
}
