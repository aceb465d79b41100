package session

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// Compiled is the desired state of one machine. It is immutable; bodies are shared between machines.
type Compiled struct {
	// Desired is what the agent is told first. Its components are sorted by name.
	Desired *agentv1.Desired
	parts   []part
	// revision hashes all components, also those that Desired.Hash leaves out.
	revision [sha256.Size]byte
}

// part is an encoded component. It is immutable.
type part struct {
	ref  *agentv1.ComponentRef
	body []byte
}

// Hash returns the hash of the desired state in lower case hexadecimal, as agents' reports are recorded.
func (c *Compiled) Hash() string { return hex.EncodeToString(c.Desired.Hash) }

// Body returns the body of the component with the hash.
func (c *Compiled) Body(hash []byte) ([]byte, bool) {
	for _, p := range c.parts {
		if string(p.ref.Hash) == string(hash) {
			return p.body, true
		}
	}
	return nil, false
}

// Compile compiles the desired state of a machine. It has kind NotFound where the machine or its pool does not exist.
func Compile(s *state.Snapshot, machineID string) (*Compiled, error) {
	return newView(s, nil).compile(machineID)
}

// DesiredHash returns [Compiled.Hash] of a machine, or "" where it has no desired state.
func DesiredHash(s *state.Snapshot, machineID string) string {
	c, err := Compile(s, machineID)
	if err != nil {
		return ""
	}
	return c.Hash()
}

// view compiles machines of one snapshot and remembers what they share.
type view struct {
	s *state.Snapshot
	// pools are encoded pool components; those of the view before are taken over where nothing changed.
	pools, before map[poolKey]pooled
	// members are the encoded chunks of each pool.
	members map[string][]part
	// origins are the zones that the cluster answers for; servers the DNS servers by network.
	origins []string
	servers map[string][]string
}

// poolKey identifies all that a pool component is made from.
type poolKey struct {
	uid, name       string
	generation      uint64
	network         string
	networkRevision uint64
}

// pooled is an encoded pool component and the pools whose members go with it.
type pooled struct {
	part    part
	members []string
}

// newView makes a view. The view before lends what is still valid; it may be nil.
func newView(s *state.Snapshot, before *view) *view {
	v := &view{
		s: s, pools: map[poolKey]pooled{}, members: map[string][]part{}, servers: map[string][]string{}, origins: dnszone.Origins(s),
	}
	if before != nil {
		v.before, before.before = before.pools, nil
	}
	return v
}

func (v *view) compile(machineID string) (*Compiled, error) {
	m := v.s.Machine(machineID)
	if m == nil {
		return nil, errs.New(errs.NotFound, "cannot compile the desired state of machine %q: it does not exist", machineID)
	}
	pool := v.s.Pool(m.GetSpec().GetPool())
	if pool == nil {
		return nil, errs.New(errs.NotFound, "cannot compile the desired state of %s: its pool %s does not exist", m.GetSpec().GetSlot(), m.GetSpec().GetPool())
	}
	shared, err := v.pool(pool, m.GetSpec().GetNetwork())
	if err != nil {
		return nil, err
	}
	own, err := encode("machine", v.machine(m, pool))
	if err != nil {
		return nil, err
	}
	parts := []part{own, shared.part}
	for _, name := range shared.members {
		chunks, err := v.chunks(name)
		if err != nil {
			return nil, err
		}
		parts = append(parts, chunks...)
	}
	return assemble(parts, pool.GetMetadata().GetGeneration()), nil
}

// assemble hashes components: each name, a zero octet and the component's hash, in order of name. Readiness is left out of
// the hash of the desired state.
func assemble(parts []part, generation uint64) *Compiled {
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.ref.Name, b.ref.Name) })
	d := &agentv1.Desired{PoolGeneration: generation}
	var wanted, all []byte
	for _, p := range parts {
		line := append(append([]byte(p.ref.Name), 0), p.ref.Hash...)
		if all = append(all, line...); !strings.HasPrefix(p.ref.Name, readyPrefix) {
			wanted = append(wanted, line...)
		}
		d.Components = append(d.Components, p.ref)
	}
	hash := sha256.Sum256(wanted)
	d.Hash = hash[:]
	return &Compiled{Desired: d, parts: parts, revision: sha256.Sum256(all)}
}

func encode(name string, m proto.Message) (part, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return part{}, errs.New(errs.Internal, "cannot encode component %s: %w", name, err)
	}
	hash := sha256.Sum256(body)
	return part{ref: &agentv1.ComponentRef{Name: name, Hash: hash[:]}, body: body}, nil
}

func (v *view) machine(m *provisionrv1.Machine, pool *provisionrv1.Pool) *agentv1.MachineComponent {
	spec := m.GetSpec()
	network := v.s.Network(spec.GetNetwork())
	c := &agentv1.MachineComponent{
		MachineId: m.GetMetadata().GetName(), Name: spec.GetSlot(), Fqdn: spec.GetFqdn(), Index: spec.GetIndex(), Pool: spec.GetPool(),
		Cidr:       network.GetSpec().GetCidr(),
		NtpServers: pool.GetSpec().GetNtp().GetServers(),
		HttpProxy:  network.GetSpec().GetHttpProxy(),
		DnsServers: v.dnsServers(spec.GetNetwork()),
		Zones:      v.origins,
		Os:         &agentv1.OperatingSystem{Distribution: spec.GetOs().GetDistribution(), Release: spec.GetOs().GetRelease()},
	}
	_, c.Domain, _ = strings.Cut(c.Fqdn, ".")
	if len(c.NtpServers) == 0 {
		c.NtpServers = network.GetSpec().GetNtpServers()
	}
	if addrs := dnszone.Addresses(v.s, m); len(addrs) > 0 {
		c.Address = addrs[0].String()
	}
	return c
}

func (v *view) pool(p *provisionrv1.Pool, networkName string) (pooled, error) {
	network := v.s.Network(networkName)
	key := poolKey{
		uid: p.GetMetadata().GetUid(), name: p.GetMetadata().GetName(), generation: p.GetMetadata().GetGeneration(),
		network: networkName, networkRevision: network.GetMetadata().GetGeneration(),
	}
	if known, ok := v.pools[key]; ok {
		return known, nil
	}
	known, ok := v.before[key]
	if !ok {
		component, err := poolComponent(p, network.GetSpec().GetCidr())
		if err != nil {
			return pooled{}, errs.New(errs.KindOf(err), "cannot compile pool %s: %w", key.name, err)
		}
		if known.part, err = encode("pool", component); err != nil {
			return pooled{}, err
		}
		known.members = []string{key.name}
		for _, rule := range component.GetFirewall().GetRules() {
			known.members = append(known.members, rule.Pools...)
		}
		slices.Sort(known.members)
		known.members = slices.Compact(known.members)
	}
	v.pools[key] = known
	return known, nil
}
