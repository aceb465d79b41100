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
	// Desired is what the agent is told first. Its components are sorted by name. Its hash leaves out the programs that this
	// member has for the machine, beside readiness: members of different builds have different ones, and would otherwise
	// disagree about whether a machine is as desired.
	Desired *agentv1.Desired
	parts   []part
	// revision hashes all components, also those that Desired.Hash leaves out.
	revision [sha256.Size]byte
}

// part is an encoded component. It is immutable.
type part struct {
	ref  *agentv1.ComponentRef
	body []byte
	// asked is the hash of what the component asks of the machine, where that is not all of it.
	asked []byte
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

// Components returns all components with their bodies, in order of name.
func (c *Compiled) Components() []*agentv1.Component {
	out := make([]*agentv1.Component, 0, len(c.parts))
	for _, p := range c.parts {
		out = append(out, &agentv1.Component{Hash: p.ref.Hash, Body: p.body})
	}
	return out
}

// Compile compiles the desired state of a machine. It has kind NotFound where the machine or its pool does not exist.
func Compile(s *state.Snapshot, machineID string) (*Compiled, error) {
	return new(Compiler).Compile(s, machineID)
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
	s        *state.Snapshot
	programs map[string][]byte
	// proposed stands for the pool of its name; nil outside of previews.
	proposed *provisionrv1.Pool
	// pools are encoded pool components; those of the view before are taken over where nothing changed.
	pools, before map[poolKey]pooled
	// members are the encoded chunks of each pool, vpns the encoded nodes that each pool sees.
	members map[string][]part
	vpns    map[string]part
	// nodes are the members of each Vpn, roles the pools of each role; nil before they are asked for.
	nodes map[string]*vpnNodes
	roles map[string][]string
	// origins are the zones that the cluster answers for; servers and ranges those of DNS servers and of all servers by
	// network; authorities the keys that sign SSH certificates.
	origins     []string
	servers     map[string][]string
	ranges      map[string][]string
	authorities []string
}

// newView makes a view. The view before lends what is still valid; it may be nil.
func newView(s *state.Snapshot, before *view) *view {
	v := &view{
		s: s, pools: map[poolKey]pooled{}, members: map[string][]part{}, vpns: map[string]part{}, nodes: map[string]*vpnNodes{},
		servers: map[string][]string{}, ranges: map[string][]string{}, origins: dnszone.Origins(s), authorities: sshAuthorities(s),
	}
	if before != nil {
		v.before, before.before = before.pools, nil
	}
	return v
}

// poolOf returns a pool as it is to be.
func (v *view) poolOf(name string) *provisionrv1.Pool {
	if v.proposed.GetMetadata().GetName() == name && v.proposed != nil {
		return v.proposed
	}
	return v.s.Pool(name)
}

func (v *view) compile(machineID string) (*Compiled, error) {
	m := v.s.Machine(machineID)
	if m == nil {
		return nil, errs.New(errs.NotFound, "cannot compile the desired state of machine %q: it does not exist", machineID)
	}
	pool := v.poolOf(m.GetSpec().GetPool())
	if pool == nil {
		return nil, errs.New(errs.NotFound, "cannot compile the desired state of %s: its pool %s does not exist", m.GetSpec().GetSlot(), m.GetSpec().GetPool())
	}
	shared, err := v.pool(pool, m.GetSpec().GetNetwork())
	if err != nil {
		return nil, err
	}
	own, err := v.own(m, pool)
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
	if v.s.Vpn(pool.GetSpec().GetVpn().GetName()) != nil {
		nodes, err := v.vpn(pool)
		if err != nil {
			return nil, err
		}
		parts = append(parts, nodes)
	}
	return assemble(parts, pool.GetMetadata().GetGeneration()), nil
}

// own encodes the machine's own component.
func (v *view) own(m *provisionrv1.Machine, pool *provisionrv1.Pool) (part, error) {
	component := v.machine(m, pool)
	own, err := encode("machine", component)
	if err != nil || len(v.programs) == 0 {
		return own, err
	}
	component.Programs = v.programs
	whole, err := encode("machine", component)
	whole.asked = own.ref.GetHash()
	return whole, err
}

// assemble hashes components: each name, a zero octet and the component's hash, in order of name. Readiness is left out of
// the hash of the desired state.
func assemble(parts []part, generation uint64) *Compiled {
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.ref.Name, b.ref.Name) })
	d := &agentv1.Desired{PoolGeneration: generation}
	wanted, all := sha256.New(), sha256.New()
	for _, p := range parts {
		name := append([]byte(p.ref.Name), 0)
		all.Write(name)
		all.Write(p.ref.Hash)
		if !strings.HasPrefix(p.ref.Name, readyPrefix) {
			asked := p.asked
			if asked == nil {
				asked = p.ref.Hash
			}
			wanted.Write(name)
			wanted.Write(asked)
		}
		d.Components = append(d.Components, p.ref)
	}
	d.Hash = wanted.Sum(nil)
	c := &Compiled{Desired: d, parts: parts}
	all.Sum(c.revision[:0])
	return c
}

func encode(name string, m proto.Message) (part, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return part{}, errs.New(errs.Internal, "cannot encode component %s: %w", name, err)
	}
	hash := sha256.Sum256(body)
	return part{ref: &agentv1.ComponentRef{Name: name, Hash: hash[:]}, body: body}, nil
}
