package server

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
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

// resolution is the DNS service of a member: the zones of the state, their keys, their secondaries and who asks. It answers at
// any number of addresses, which come with networks.
type resolution struct {
	server    *Server
	log       *slog.Logger
	online    *dnssec.Online
	transfers *transfer.Server
	known     sources
	cookies   atomic.Pointer[[2][16]byte]
	// set is what is answered from.
	set atomic.Pointer[zone.Set]

	mu sync.Mutex
	// listeners answer from the zones.
	listeners []*dnsserver.Server
}

// serveNames keeps zones and their copies at the state, and answers at the hosts' DNS port.
func (s *Server) serveNames(ctx context.Context, group *errgroup.Group, hosts []netip.Addr) error {
	log := s.config.Logger.With("part", "dns")
	workers := max(1, runtime.GOMAXPROCS(0)/2) // The others answer.
	r := &resolution{server: s, log: log, online: dnssec.NewOnline(dnssec.OnlineConfig{Workers: workers})}
	r.cookies.Store(&[2][16]byte{})
	var err error
	if r.transfers, err = transfer.New(transfer.Config{Set: r.set.Load, Policy: s.zoneKeys.Policy, Online: r.online.Answer, Logger: log}); err != nil {
		return err
	}
	publisher, err := dnszone.NewPublisher(dnszone.PublisherConfig{
		State: s.store, Answers: r, Logger: log, Zones: dnszone.Config{Signing: s.zoneKeys}, Delta: r.transfers.Delta,
	})
	if err != nil {
		return err
	}
	s.names = r
	if err := r.listen(ctx, group, hosts); err != nil {
		return err
	}
	for _, run := range []func(context.Context) error{r.transfers.Run, r.late(publisher.Run), r.notifyLate, r.keepCookies} {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return s.zoneKeys.Follow(ctx, r.online) })
	group.Go(func() error { return r.known.follow(ctx, s.store) })
	return nil
}

// listen answers at the hosts' DNS port too, until ctx ends.
func (r *resolution) listen(ctx context.Context, group *errgroup.Group, hosts []netip.Addr) error {
	config := r.server.config
	var addresses []netip.AddrPort
	for _, host := range hosts {
		addresses = append(addresses, netip.AddrPortFrom(host, config.Ports.DNS))
	}
	l, err := dnsserver.New(dnsserver.Config{
		Addrs: addresses, ID: config.Name, RateLimit: config.DNSRateLimit, Known: r.known.has,
		Cookies: func() [2][16]byte { return *r.cookies.Load() },
		Special: r.transfers.Special, Online: r.online.Answer, Logger: r.log,
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.Use(r.set.Load())
	r.listeners = append(r.listeners, l)
	group.Go(func() error {
		defer r.leave(l)
		return l.Run(ctx)
	})
	return nil
}

// leave forgets a listener that has ended.
func (r *resolution) leave(l *dnsserver.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listeners = slices.DeleteFunc(r.listeners, func(have *dnsserver.Server) bool { return have == l })
}

// Set answers from the zones, and then tells the secondaries, unless these may know better.
func (r *resolution) Set(zones []*zone.Zone) error {
	set, err := zone.NewSet(zones)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set.Store(set)
	for _, l := range r.listeners {
		l.Use(set)
	}
	select {
	case <-r.server.caughtUp:
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
		case <-r.server.caughtUp:
		case <-time.After(catchUp):
		}
		return run(ctx)
	}
}

// notifyLate tells the secondaries of what was answered before the state had caught up.
func (r *resolution) notifyLate(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-r.server.caughtUp:
		if set := r.set.Load(); set != nil {
			r.notify(set.Zones())
		}
	}
	return nil
}

// keepCookies keeps the secrets of cookies, which all members derive alike. Until the cluster's keys are there, there are none.
func (r *resolution) keepCookies(ctx context.Context) error {
	for {
		changed := r.server.store.Watch(state.TableCluster)
		if secrets, err := r.server.ca.CookieSecrets(time.Now()); err == nil {
			r.cookies.Store(&secrets)
		} else {
			r.log.Debug("no dns cookies yet", "error", err)
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
