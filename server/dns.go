package server

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/zone"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// cookieCheck is how often the secrets of cookies are looked up: they change once a day.
const cookieCheck = time.Minute

// catchUp is how long the zones wait for this member's state to be the cluster's: names of long ago are worth more than none.
const catchUp = 10 * time.Second

// resolution is the DNS service of a member: the zones of the state, their keys, their secondaries and who asks.
type resolution struct {
	names     *dnsserver.Server
	transfers *transfer.Server
	known     sources
	// caughtUp is closed when the state has caught up with the cluster.
	caughtUp <-chan struct{}
	cookies  atomic.Pointer[[2][16]byte]
}

// serveDNS answers names at the hosts' DNS port.
func (s *Server) serveDNS(ctx context.Context, group *errgroup.Group, hosts []netip.Addr) error {
	var addresses []netip.AddrPort
	for _, host := range hosts {
		addresses = append(addresses, netip.AddrPortFrom(host, s.config.Ports.DNS))
	}
	log := s.config.Logger.With("part", "dns")
	r, online := &resolution{caughtUp: s.caughtUp}, dnssec.NewOnline(dnssec.OnlineConfig{Workers: max(1, runtime.GOMAXPROCS(0)/2)}) // The others answer.
	r.cookies.Store(&[2][16]byte{})
	var err error
	if r.transfers, err = transfer.New(transfer.Config{Set: r.current, Policy: s.zoneKeys.Policy, Online: online.Answer, Logger: log}); err != nil {
		return err
	}
	if r.names, err = dnsserver.New(dnsserver.Config{
		Addrs: addresses, ID: s.config.Name, RateLimit: s.config.DNSRateLimit, Known: r.known.has,
		Cookies: func() [2][16]byte { return *r.cookies.Load() },
		Special: r.transfers.Special, Online: online.Answer, Logger: log,
	}); err != nil {
		return err
	}
	publisher, err := dnszone.NewPublisher(dnszone.PublisherConfig{
		State: s.store, Answers: r, Logger: log, Zones: dnszone.Config{Signing: s.zoneKeys}, Delta: r.transfers.Delta,
	})
	if err != nil {
		return err
	}
	for _, run := range []func(context.Context) error{r.names.Run, r.transfers.Run, r.late(publisher.Run), r.notifyLate} {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return s.zoneKeys.Follow(ctx, online) })
	group.Go(func() error { return r.known.follow(ctx, s.store) })
	group.Go(func() error { return s.keepCookies(ctx, r, log) })
	return nil
}

func (r *resolution) current() *zone.Set { return r.names.Current() }

// Set answers from the zones, and then tells the secondaries, unless these may know better.
func (r *resolution) Set(zones []*zone.Zone) error {
	if err := r.names.Set(zones); err != nil {
		return err
	}
	select {
	case <-r.caughtUp:
		r.notify(zones)
	default:
	}
	return nil
}

func (r *resolution) notify(zones []*zone.Zone) {
	origins := make([]string, len(zones))
	for i, z := range zones {
		origins[i] = z.Origin()
	}
	r.transfers.Notify(origins...)
}

// late runs something as soon as the state has caught up, else after a while.
func (r *resolution) late(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-r.caughtUp:
		case <-time.After(catchUp):
		}
		return run(ctx)
	}
}

// notifyLate tells the secondaries of what was answered before the state had caught up.
func (r *resolution) notifyLate(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-r.caughtUp:
		if set := r.current(); set != nil {
			r.notify(set.Zones())
		}
	}
	return nil
}

// keepCookies keeps the secrets of cookies, which all members derive alike. Until the cluster's keys are there, there are none.
func (s *Server) keepCookies(ctx context.Context, r *resolution, log *slog.Logger) error {
	for {
		changed := s.store.Watch(state.TableCluster)
		if secrets, err := s.ca.CookieSecrets(time.Now()); err == nil {
			r.cookies.Store(&secrets)
		} else {
			log.Debug("no dns cookies yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(cookieCheck):
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second): // every change of a name is one of the cluster
		}
	}
}

// sources are those that are answered without limit: the networks of the machines, and the zones' secondaries.
type sources struct {
	known atomic.Pointer[knownSources]
}

type knownSources struct {
	networks    []netip.Prefix
	secondaries map[netip.Addr]bool
}

func (k *sources) has(addr netip.Addr) bool {
	known := k.known.Load()
	return known != nil && (known.secondaries[addr] || slices.ContainsFunc(known.networks, func(p netip.Prefix) bool { return p.Contains(addr) }))
}

func knownOf(s *state.Snapshot) *knownSources {
	known := &knownSources{secondaries: map[netip.Addr]bool{}}
	for n := range s.Networks() {
		if prefix, err := netip.ParsePrefix(n.GetSpec().GetCidr()); err == nil {
			known.networks = append(known.networks, prefix)
		}
	}
	for z := range s.Zones() {
		for _, secondary := range z.GetSpec().GetTransfer().GetSecondaries() {
			// IP or IP:PORT: the port is where it is told of changes, not where it asks from.
			if addr, err := netip.ParseAddr(secondary.GetAddress()); err == nil {
				known.secondaries[addr.Unmap()] = true
			} else if at, err := netip.ParseAddrPort(secondary.GetAddress()); err == nil {
				known.secondaries[at.Addr().Unmap()] = true
			}
		}
	}
	return known
}

func (k *sources) follow(ctx context.Context, store *state.Store) error {
	for {
		changed := store.Watch(state.TableNetworks, state.TableZones)
		k.known.Store(knownOf(store.Read()))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
