package desired

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Bounds of what is accepted. They are far above what a server compiles, and keep a damaged cache from filling memory.
const (
	MaxComponents = 4096
	MaxComponent  = 16 << 20
)

// Names of components; a chunk of membership is members/POOL/CHUNK, and which of its members are ready ready/POOL/CHUNK.
const (
	machineName   = "machine"
	poolName      = "pool"
	vpnName       = "vpn"
	membersPrefix = "members/"
	readyPrefix   = "ready/"
)

// Check reports whether a Desired message is well formed, before any component is asked for.
func Check(d *agentv1.Desired) error {
	if len(d.Hash) != sha256.Size {
		return errs.New(errs.Invalid, "cannot use desired state: its hash has %d bytes", len(d.Hash))
	}
	if len(d.Components) > MaxComponents {
		return errs.New(errs.Invalid, "cannot use desired state: %d components, more than %d", len(d.Components), MaxComponents)
	}
	seen := make(map[string]bool, len(d.Components))
	for _, ref := range d.Components {
		if len(ref.Hash) != sha256.Size || ref.Name == "" || seen[ref.Name] {
			return errs.New(errs.Invalid, "cannot use desired state: component %q has no proper hash or comes twice", ref.Name)
		}
		seen[ref.Name] = true
	}
	if !seen[machineName] || !seen[poolName] {
		return errs.New(errs.Invalid, "cannot use desired state: component machine or pool is missing")
	}
	return nil
}

// slot names a member of a pool.
type slot struct {
	pool  string
	index uint32
}

// Decode builds the State that a Desired message stands for. Body returns the body of a component by its hash.
// Components with unknown names are ignored: a newer server may send more than this agent knows.
// All errors have kind errs.Invalid; the result obeys every bound of the proto definitions.
func Decode(d *agentv1.Desired, body func(hash []byte) ([]byte, bool)) (*State, error) {
	if err := Check(d); err != nil {
		return nil, err
	}
	s := &State{
		Hash: bytes.Clone(d.Hash), PoolGeneration: d.PoolGeneration,
		Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{}, Members: make(map[string][]*agentv1.Member),
	}
	revision, ready, vpn := sha256.New(), map[slot]bool{}, &agentv1.VpnComponent{}
	for _, ref := range d.Components {
		revision.Write(append(append([]byte(ref.Name), 0), ref.Hash...))
		var into proto.Message
		chunk := &agentv1.MemberChunk{}
		switch {
		case ref.Name == machineName:
			into = s.Machine
		case ref.Name == poolName:
			into = s.Pool
		case ref.Name == vpnName:
			into = vpn
		case strings.HasPrefix(ref.Name, membersPrefix), strings.HasPrefix(ref.Name, readyPrefix):
			into = chunk
		default:
			continue
		}
		data, ok := body(ref.Hash)
		if !ok {
			return nil, errs.New(errs.Invalid, "cannot decode desired state: the body of component %s is missing", ref.Name)
		}
		if err := proto.Unmarshal(data, into); err != nil {
			return nil, errs.New(errs.Invalid, "cannot decode component %s: %w", ref.Name, err)
		}
		switch {
		case into != chunk:
		case strings.HasPrefix(ref.Name, readyPrefix):
			for _, m := range chunk.Members {
				ready[slot{chunk.Pool, m.GetIndex()}] = true
			}
		default:
			s.Members[chunk.Pool] = append(s.Members[chunk.Pool], chunk.Members...)
		}
	}
	s.Revision, s.VPN = revision.Sum(nil), vpn.Nodes
	for pool, members := range s.Members {
		for _, m := range members {
			m.Ready = ready[slot{pool, m.GetIndex()}]
		}
	}
	for _, pool := range slices.Sorted(maps.Keys(s.Members)) {
		slices.SortStableFunc(s.Members[pool], func(a, b *agentv1.Member) int { return cmp.Compare(a.GetIndex(), b.GetIndex()) })
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s, nil
}
