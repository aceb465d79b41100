//go:build machine

package interop

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// primary is our server, composed as the program has it.
type primary struct {
	*dnsserver.Server
	addr   netip.AddrPort
	copies *transfer.Server
	online *dnssec.Online
	policy atomic.Pointer[map[string]transfer.Policy]
	log    *transfers
}

// serve runs our server with the zones until the test ends. More may change its configuration.
func serve(t *testing.T, zones []*zone.Zone, more func(*dnsserver.Config)) *primary {
	t.Helper()
	p := &primary{online: dnssec.NewOnline(dnssec.OnlineConfig{}), log: &transfers{sent: map[sent]int{}}}
	p.policy.Store(&map[string]transfer.Policy{})
	var err error
	p.copies, err = transfer.New(transfer.Config{
		Set: func() *zone.Set { return p.Current() }, Online: p.online.Answer, Logger: slog.New(p.log),
		Policy: func(origin string) transfer.Policy { return (*p.policy.Load())[origin] },
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := dnsserver.Config{
		Addrs: []netip.AddrPort{netip.AddrPortFrom(loopback, 0)}, Logger: slog.New(slog.DiscardHandler), ID: identity,
		Special: p.copies.Special, Online: p.online.Answer,
	}
	if more != nil {
		more(&cfg)
	}
	if p.Server, err = dnsserver.New(cfg); err != nil {
		t.Fatal(err)
	}
	p.publish(t, zones...)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	for _, run := range []func(context.Context) error{p.Run, p.copies.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	<-p.Ready()
	p.addr = p.Addr()
	return p
}

// publish has the zones answered from.
func (p *primary) publish(t *testing.T, zones ...*zone.Zone) {
	t.Helper()
	if err := p.Set(zones); err != nil {
		t.Fatal(err)
	}
}

// sent tells transfers apart: to whom, by their key, of which zone, and AXFR or IXFR.
type sent struct{ key, zone, kind string }

// transfers counts the transfers that our server logs.
type transfers struct {
	mu   sync.Mutex
	sent map[sent]int
	attr []slog.Attr
	of   *transfers
}

func (c *transfers) Enabled(context.Context, slog.Level) bool { return true }
func (c *transfers) WithGroup(string) slog.Handler            { return c }

func (c *transfers) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &transfers{attr: append(c.attr[:len(c.attr):len(c.attr)], attrs...), of: c.root()}
}

func (c *transfers) root() *transfers {
	if c.of != nil {
		return c.of
	}
	return c
}

func (c *transfers) Handle(_ context.Context, r slog.Record) error {
	var s sent
	for _, a := range c.attr {
		switch a.Key {
		case "key":
			s.key = a.Value.String()
		case "zone":
			s.zone = a.Value.String()
		case "kind":
			s.kind = a.Value.String()
		}
	}
	if r.Message == "zone transferred" {
		root := c.root()
		root.mu.Lock()
		defer root.mu.Unlock()
		root.sent[s]++
	}
	return nil
}

// count returns how many transfers there were.
func (c *transfers) count(s sent) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent[s]
}
