package reconcile

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// ensure makes a network usable and commits what the provider adds to it.
func (c caller) ensure(ctx context.Context, a Action) result {
	ctx, cancel := context.WithTimeout(ctx, ensureTimeout)
	defer cancel()
	p, err := c.prepare(ctx, a)
	if err != nil {
		return result{err: err}
	}
	network := c.Store.Read().Network(a.Network)
	if network == nil || network.GetMetadata().GetGeneration() != a.Generation {
		return result{err: errs.New(errs.Canceled, "the network has changed: %w", context.Canceled)}
	}
	c.Hook("ensure.before")
	spec, err := p.EnsureNetwork(ctx, asking(network))
	c.Hook("ensure.called")
	if err != nil {
		return result{err: err, event: unusable(a, err)}
	}
	if spec == nil {
		return result{generation: a.Generation}
	}
	completed := answered(network, spec)
	if proto.Equal(completed.GetSpec(), network.GetSpec()) {
		return result{generation: a.Generation}
	}
	err = c.propose(ctx, &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{
		Objects: []*provisionrv1.Object{{Kind: &provisionrv1.Object_Network{Network: completed}}}, Uids: []string{rand.Text()},
	}}})
	if err != nil {
		return result{err: err, event: unusable(a, err)}
	}
	c.Hook("ensure.committed")
	return result{generation: c.Store.Read().Network(a.Network).GetMetadata().GetGeneration()}
}

// asking returns a network for its provider to complete: of what machines are offered, the provider's own is left to it anew.
func asking(n *provisionrv1.Network) *provisionrv1.Network {
	n = clone(n)
	if wrote := n.GetWritten(); wrote != nil {
		n.Spec.NtpServers, n.Spec.DnsServers = slices.Clone(wrote.GetNtpServers()), slices.Clone(wrote.GetDnsServers())
		n.Spec.HttpProxy = wrote.GetHttpProxy()
	}
	return n
}

// answered returns a network with its provider's specification. Of what machines are offered, what a user has written wins.
func answered(n *provisionrv1.Network, spec *provisionrv1.NetworkSpec) *provisionrv1.Network {
	n = clone(n)
	n.Spec = clone(spec)
	wrote := n.GetWritten()
	if len(wrote.GetNtpServers()) > 0 {
		n.Spec.NtpServers = slices.Clone(wrote.GetNtpServers())
	}
	if len(wrote.GetDnsServers()) > 0 {
		n.Spec.DnsServers = slices.Clone(wrote.GetDnsServers())
	}
	n.Spec.HttpProxy = cmp.Or(wrote.GetHttpProxy(), n.Spec.GetHttpProxy())
	return n
}

func unusable(a Action, err error) *provisionrv1.Event {
	return &provisionrv1.Event{Reason: "NetworkUnusable", Warning: true, Message: "network " + a.Network + " cannot be used: " + err.Error()}
}
