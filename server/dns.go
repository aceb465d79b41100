package server

import (
	"context"
	"log/slog"
	"net/netip"
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

// resolution is the DNS service of a member: the zones of the state, their keys, their secondaries and who asks.
type resolution struct {
	names     *dnsserver.Server
	transfers *transfer.Server
	known     sources
	cookies   atomic.Pointer[[2][16]byte]
}

// serveDNS answers names at the hosts' DNS port.
func (s *Server) serveDNS(ctx context.Context, group *errgroup.Group, hosts []netip.Addr) error {
	var addresses []netip.AddrPort
	for _, host := range hosts {
		addresses = append(addresses, netip.AddrPortFrom(host, s.config.Ports.DNS))
	}
	log := s.config.Logger.With("part", "dns")
	r, online := &resolution{}, dnssec.NewOnline(dnssec.OnlineConfig{})
	r.cookies.Store(&[2][16]byte{})
	var err error
	if r.transfers, err = transfer.New(transfer.Config{Zones: r.zones, Policy: s.zoneKeys.Policy, Online: online.Answer, Logger: log}); err != nil {
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
	for _, run := range []func(context.Context) error{r.names.Run, r.transfers.Run, publisher.Run} {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error { return s.zoneKeys.Follow(ctx, online) })
	group.Go(func() error { return r.known.follow(ctx, s.store) })
	group.Go(func() error { return s.keepCookies(ctx, r, log) })
	return nil
}

func (r *resolution) zones() []*zone.Zone { return r.names.Zones() }

// Set answers from the zones, and then tells the secondaries.
func (r *resolution) Set(zones []*zone.Zone) error {
	if err := r.names.Set(zones); err != nil {
		return err
	}
	origins := make([]string, len(zones))
	for i, z := range zones {
		origins[i] = z.Origin()
	}
	r.transfers.Notify(origins...)
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

// sources are the networks whose addresses are not forged: those of the machines.
type sources struct {
	prefixes atomic.Pointer[[]netip.Prefix]
}

func (k *sources) has(addr netip.Addr) bool {
	prefixes := k.prefixes.Load()
	return prefixes != nil && slices.ContainsFunc(*prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func (k *sources) follow(ctx context.Context, store *state.Store) error {
	for {
		changed := store.Watch(state.TableNetworks)
		var prefixes []netip.Prefix
		for n := range store.Read().Networks() {
			if prefix, err := netip.ParsePrefix(n.GetSpec().GetCidr()); err == nil {
				prefixes = append(prefixes, prefix)
			}
		}
		k.prefixes.Store(&prefixes)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}
