package server

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// TestListeners: whoever listens answers from the zones of now, whether it came before or after them, until it ends.
func TestListeners(t *testing.T) {
	r := &resolution{server: &Server{config: Config{Name: "a"}}, log: slog.New(slog.DiscardHandler)}
	publish := func(serial uint32) {
		z, err := zone.Build(zone.Config{Origin: "example.org", Serial: serial, TTL: 30, NS: []zone.NameServer{{Name: "ns.example.net"}}})
		if err == nil {
			err = r.Set([]*zone.Zone{z})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group errgroup.Group
	for serial := range uint32(3) {
		if err := r.listen(ctx, &group, []netip.Addr{netip.MustParseAddr("127.0.0.1")}); err != nil {
			t.Fatal(err)
		}
		publish(serial)
		for i, l := range r.listeners {
			if got := l.Current().Zones()[0].Serial(); got != serial {
				t.Errorf("listener %d answers serial %d, not %d", i, got, serial)
			}
		}
	}
	if err := r.listen(ctx, &group, []netip.Addr{netip.MustParseAddr("127.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	if got := r.listeners[3].Current().Zones()[0].Serial(); got != 2 {
		t.Errorf("one who comes later answers serial %d", got)
	}
	cancel()
	if err := group.Wait(); err != nil || len(r.listeners) != 0 {
		t.Errorf("%d listeners are left: %v", len(r.listeners), err)
	}
}

// TestLate: zones are published when the state has caught up, else after a while, and not at all when the member ends.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []time.Duration{0, time.Second, time.Hour} {
			caughtUp := make(chan struct{})
			time.AfterFunc(after, func() { close(caughtUp) })
			begin := time.Now()
			var ran time.Duration
			run := (&resolution{server: &Server{caughtUp: caughtUp}}).late(func(context.Context) error {
				ran = time.Since(begin)
				return nil
			})
			if err := run(t.Context()); err != nil || ran != min(after, catchUp) {
				t.Errorf("published after %s, the state was there after %s: %v", ran, after, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		run := (&resolution{server: &Server{caughtUp: make(chan struct{})}}).late(func(context.Context) error {
			t.Error("published after the end")
			return nil
		})
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
}
