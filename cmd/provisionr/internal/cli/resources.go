package cli

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/spec"
)

// resources are the kinds of `get`, in the order of its help.
func resources() []resource {
	return []resource{
		{"pools", []string{"pool"}, getPools, poolView},
		{"machines", []string{"machine", "m"}, getMachines, machineView},
		{"slots", []string{"slot"}, getSlots, slotView},
		{"zones", []string{"zone"}, getZones, zoneView},
		{"networks", []string{"network", "net"}, getNetworks, networkView},
		{"providers", []string{"provider"}, getProviders, providerView},
		{"vpns", []string{"vpn"}, getVpns, vpnView},
		{"vpn-peers", []string{"vpn-peer", "vpnpeer", "vpnpeers"}, getVpnPeers, vpnPeerView},
		{"secrets", []string{"secret"}, getSecrets, secretView},
		{"events", []string{"event"}, getEvents, eventView},
		{"users", []string{"user"}, getUsers, userView},
		{"tokens", []string{"token"}, getTokens, tokenView},
	}
}

func getPools(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.pools.ListPools(ctx, &provisionrv1.ListPoolsRequest{})
	return messages(r.GetPools(), err)
}

func poolView() view {
	return view{kind: "pool", name: namedBy[*provisionrv1.Pool], wide: 6,
		header: []string{"NAME", "READY", "SIZE", "STATE", "AGE", "MESSAGE", "PROVIDER", "ZONE", "NETWORK", "GENERATION"},
		row: rowOf(func(p *provisionrv1.Pool) []any {
			s, state := p.GetSpec(), poolCell(p.GetStatus().GetState())
			if p.GetMetadata().GetDeleted() != nil {
				state = cell{"deleting", yellow}
			}
			return []any{p.GetMetadata().GetName(), dec(p.GetStatus().GetReady()), dec(s.GetSize()), state, age(p.GetMetadata().GetCreated()),
				p.GetStatus().GetMessage(), orDash(s.GetProvider()), orDash(s.GetZone()), orDash(s.GetNetwork()), dec(p.GetMetadata().GetGeneration())}
		})}
}

func getMachines(ctx context.Context, c *client, pool string, gone bool) ([]proto.Message, error) {
	r, err := c.machines.ListMachines(ctx, &provisionrv1.ListMachinesRequest{Pool: pool, Gone: gone})
	return messages(ordered(r.GetMachines()), err)
}

func machineView() view {
	return view{kind: "machine", name: func(m proto.Message) string { return machineName(m.(*provisionrv1.Machine)) }, wide: 6,
		header: []string{"NAME", "POOL", "PHASE", "ADDRESS", "AGE", "MESSAGE", "ID", "FQDN", "PROVIDER", "AGENT", "GENERATION"},
		row: rowOf(func(m *provisionrv1.Machine) []any {
			s := m.GetStatus()
			return []any{machineName(m), m.GetSpec().GetPool(), phaseCell(s.GetPhase()), orDash(s.GetAddress()), age(m.GetMetadata().GetCreated()),
				short(machineMessage(m), 80), m.GetMetadata().GetName(), m.GetSpec().GetFqdn(), m.GetSpec().GetProvider(),
				orDash(s.GetAgent().GetVersion()), dec(s.GetAgent().GetPoolGeneration())}
		})}
}

// machineName is the slot, or the id of a machine that has none.
func machineName(m *provisionrv1.Machine) string {
	if slot := m.GetSpec().GetSlot(); slot != "" {
		return slot
	}
	return m.GetMetadata().GetName()
}

func getSlots(ctx context.Context, c *client, pool string, _ bool) ([]proto.Message, error) {
	list, err := slots(ctx, c, pool)
	return messages(list, err)
}

func slotView() view {
	return view{kind: "slot", name: namedBy[*provisionrv1.Slot], wide: 5,
		header: []string{"NAME", "POOL", "HOLDER", "HEIR", "FQDN"},
		row: rowOf(func(s *provisionrv1.Slot) []any {
			return []any{s.GetMetadata().GetName(), s.GetPool(), orDash(s.GetHolder()), orDash(s.GetHeir()), s.GetFqdn()}
		})}
}

func getZones(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.infra.ListZones(ctx, &provisionrv1.ListInfraRequest{})
	return messages(r.GetZones(), err)
}

func zoneView() view {
	return view{kind: "zone", name: namedBy[*provisionrv1.Zone], wide: 4,
		header: []string{"NAME", "DOMAIN", "TTL", "RECORDS"},
		row: rowOf(func(z *provisionrv1.Zone) []any {
			return []any{z.GetMetadata().GetName(), z.GetSpec().GetDomain(), dec(z.GetSpec().GetTtl()), dec(len(z.GetSpec().GetRecords()))}
		})}
}

func getNetworks(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.infra.ListNetworks(ctx, &provisionrv1.ListInfraRequest{})
	return messages(r.GetNetworks(), err)
}

func networkView() view {
	return view{kind: "network", name: namedBy[*provisionrv1.Network], wide: 5,
		header: []string{"NAME", "CIDR", "GATEWAY", "PROVIDER", "ID", "SUBNETS", "MANAGED", "NTP", "DNS", "HTTP PROXY"},
		row: rowOf(func(n *provisionrv1.Network) []any {
			s, managed := n.GetSpec(), "no"
			if s.GetManaged() {
				managed = "yes"
			}
			return []any{n.GetMetadata().GetName(), orDash(s.GetCidr()), orDash(s.GetGateway()), orDash(s.GetProvider()), orDash(s.GetId()),
				orDash(strings.Join(s.GetSubnets(), ",")), managed, orDash(strings.Join(s.GetNtpServers(), ",")),
				orDash(strings.Join(s.GetDnsServers(), ",")), orDash(s.GetHttpProxy())}
		})}
}

func getProviders(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.infra.ListProviders(ctx, &provisionrv1.ListInfraRequest{})
	return messages(r.GetProviders(), err)
}

func providerView() view {
	return view{kind: "provider", name: namedBy[*provisionrv1.Provider], wide: 4,
		header: []string{"NAME", "KIND", "REGION", "OWNER", "CALLS/S"},
		row: rowOf(func(p *provisionrv1.Provider) []any {
			calls := "-"
			if n := p.GetSpec().GetCallsPerSecond(); n > 0 {
				calls = strconv.FormatFloat(n, 'g', -1, 64)
			}
			return []any{p.GetMetadata().GetName(), orDash(spec.ProviderKind(p)), orDash(spec.Region(p)), orDash(spec.Owner(p)), calls}
		})}
}

func getEvents(ctx context.Context, c *client, pool string, _ bool) ([]proto.Message, error) {
	r, err := c.events.ListEvents(ctx, &provisionrv1.ListEventsRequest{Pool: pool})
	return messages(r.GetEvents(), err)
}

func eventView() view {
	return view{kind: "event", name: func(m proto.Message) string { return dec(m.(*provisionrv1.Event).GetVersion().GetIndex()) }, wide: 4,
		header: []string{"AGE", "ABOUT", "REASON", "MESSAGE", "BY", "INDEX"},
		row: rowOf(func(e *provisionrv1.Event) []any {
			reason := cell{e.GetReason(), plain}
			if e.GetWarning() {
				reason.style = red
			}
			return []any{age(e.GetTime()), orDash(about(e)), reason, e.GetMessage(), orDash(e.GetCaller().GetName()), dec(e.GetVersion().GetIndex())}
		})}
}

// about is the machine, else the pool, that an event is about.
func about(e *provisionrv1.Event) string {
	for _, name := range []string{e.GetSlot(), e.GetMachine(), e.GetPool()} {
		if name != "" {
			return name
		}
	}
	return ""
}

func getUsers(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.access.ListUsers(ctx, &provisionrv1.ListUsersRequest{})
	return messages(r.GetUsers(), err)
}

func userView() view {
	return view{kind: "user", name: namedBy[*provisionrv1.User], wide: 4,
		header: []string{"NAME", "ROLE", "STATE", "AGE"},
		row: rowOf(func(u *provisionrv1.User) []any {
			state := cell{"enabled", green}
			if u.GetSpec().GetDisabled() {
				state = cell{"disabled", red}
			}
			return []any{u.GetMetadata().GetName(), enumText(u.GetSpec().GetRole()), state, age(u.GetMetadata().GetCreated())}
		})}
}

func getTokens(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.access.ListTokens(ctx, &provisionrv1.ListTokensRequest{})
	return messages(r.GetTokens(), err)
}

func tokenView() view {
	return view{kind: "token", name: namedBy[*provisionrv1.Token], wide: 5,
		header: []string{"NAME", "USER", "ROLE", "AGE", "EXPIRES"},
		row: rowOf(func(t *provisionrv1.Token) []any {
			expires := "never"
			if t.GetExpires() != nil {
				expires = t.GetExpires().AsTime().Local().Format("2006-01-02 15:04")
			}
			return []any{t.GetMetadata().GetName(), t.GetUser(), enumText(t.GetRole()), age(t.GetMetadata().GetCreated()), expires}
		})}
}
