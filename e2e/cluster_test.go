//go:build machine

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

const (
	stale  = provisionrv1.Consistency_CONSISTENCY_STALE
	leader = provisionrv1.Consistency_CONSISTENCY_LEADER
	// writersEach write through each server, one object every writeEvery.
	writersEach = 2
	writeEvery  = 10 * time.Millisecond
)

// TestCluster is the life of three servers: writes through all, the death of each, and a restore.
func TestCluster(t *testing.T) {
	d := startServers(t, "", 3, 18100)
	c := &servers{dev: d}
	for n := 1; n <= 3; n++ {
		c.conns = append(c.conns, d.dial(d.api(n), d.admin()))
	}
	c.allVote()
	t.Run("kills lose nothing", func(t *testing.T) { c.killEach(t) })
	t.Run("followers take writes", func(t *testing.T) { c.writeThroughFollowers(t) })
	t.Run("snapshot and restore", func(t *testing.T) { c.restore(t) })
}

// servers are three with a connection to each.
type servers struct {
	*dev
	conns []*grpc.ClientConn
}

// network is an object that costs nothing. The number makes it distinct.
func network(name string, number int) *provisionrv1.Object {
	address := netip.AddrFrom4([4]byte{10, byte(number >> 12), byte(number >> 4), byte(number << 4)})
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
		ApiVersion: "provisionr/v1", Kind: "Network", Metadata: &provisionrv1.Metadata{Name: name},
		Spec: &provisionrv1.NetworkSpec{Cidr: netip.PrefixFrom(address, 28).String()},
	}}}
}

// apply writes objects through the nth server, and waits for it to come back where it is away.
func (c *servers) apply(ctx context.Context, n int, objects ...*provisionrv1.Object) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := provisionrv1.NewManifestServiceClient(c.conns[n-1]).Apply(ctx, &provisionrv1.ApplyRequest{Objects: objects}, grpc.WaitForReady(true))
	return err
}

// networks are the names that the nth server answers.
func (c *servers) networks(n int, consistency provisionrv1.Consistency) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), callTimeout)
	defer cancel()
	resp, err := provisionrv1.NewInfraServiceClient(c.conns[n-1]).ListNetworks(ctx,
		&provisionrv1.ListInfraRequest{Consistency: consistency}, grpc.WaitForReady(true))
	names := map[string]bool{}
	for _, network := range resp.GetNetworks() {
		names[network.GetMetadata().GetName()] = true
	}
	return names, err
}

// info is the cluster as the nth server sees it.
func (c *servers) info(n int, consistency provisionrv1.Consistency) (*provisionrv1.GetClusterResponse, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), callTimeout)
	defer cancel()
	return provisionrv1.NewClusterServiceClient(c.conns[n-1]).GetCluster(ctx,
		&provisionrv1.GetClusterRequest{Consistency: consistency}, grpc.WaitForReady(true))
}

// leader is the number of the server that leads.
func (c *servers) leader() (number int) {
	c.t.Helper()
	c.eventually("there is a leader", 20*time.Second, func() error {
		for n := range c.conns {
			info, err := c.info(n+1, leader)
			if err != nil {
				return err
			}
			if number, err = strconv.Atoi(strings.TrimPrefix(info.GetLeader(), "s")); err != nil {
				return err
			}
		}
		return nil
	})
	return number
}

// allVote waits until every server votes, so that one may be away.
func (c *servers) allVote() {
	c.t.Helper()
	c.eventually("three servers vote", 20*time.Second, func() error {
		resp, err := provisionrv1.NewClusterServiceClient(c.conns[0]).ListMembers(c.t.Context(), &provisionrv1.ListMembersRequest{})
		if err != nil {
			return err
		}
		voters := 0
		for _, m := range resp.GetMembers() {
			if m.GetVoter() && m.GetHealth() == "alive" {
				voters++
			}
		}
		if voters != 3 {
			return fmt.Errorf("%d do", voters)
		}
		return nil
	})
}

// history is what the writers were told.
type history struct {
	mu           sync.Mutex
	acknowledged map[string]bool
	through      [3]int
	unexpected   error
}

func (h *history) count(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.through[n-1]
}

// write writes distinct objects through the nth server until ctx ends. A write whose outcome is not known is not repeated.
func (h *history) write(ctx context.Context, c *servers, n, writer int) {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("w%d-%d", writer, i)
		err := errs.FromRPC(c.apply(ctx, n, network(name, writer<<16|i)))
		h.mu.Lock()
		switch {
		case err == nil:
			h.acknowledged[name] = true
			h.through[n-1]++
		case ctx.Err() != nil, errs.Is(err, errs.Unavailable), errs.Is(err, errs.Timeout):
		default:
			h.unexpected = errors.Join(h.unexpected, fmt.Errorf("%s through server %d: %w", name, n, err))
		}
		h.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// killEach kills the leader and then the others, while all are written through.
func (c *servers) killEach(t *testing.T) {
	h := &history{acknowledged: map[string]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for w := range 3 * writersEach {
		writers.Go(func() { h.write(ctx, c, w%3+1, w) })
	}
	first := c.leader()
	for _, victim := range []int{first, first%3 + 1, (first+1)%3 + 1} {
		before := [3]int{h.count(1), h.count(2), h.count(3)}
		ahead, err := c.info(c.leader(), leader)
		if err != nil {
			t.Fatal(err)
		}
		c.killServer(victim)
		c.eventually(fmt.Sprintf("server %d has caught up", victim), 20*time.Second, func() error {
			behind, err := c.info(victim, stale)
			if err == nil && behind.GetVersion().GetIndex() < ahead.GetVersion().GetIndex() {
				err = fmt.Errorf("it is at %d of %d", behind.GetVersion().GetIndex(), ahead.GetVersion().GetIndex())
			}
			return err
		})
		for n := 1; n <= 3; n++ {
			c.eventually(fmt.Sprintf("writes through server %d go on after the death of %d", n, victim), 20*time.Second, func() error {
				if now := h.count(n); now < before[n-1]+20 {
					return fmt.Errorf("%d before, %d now", before[n-1], now)
				}
				return nil
			})
		}
		c.allVote()
	}
	stop()
	writers.Wait()
	if h.unexpected != nil {
		t.Errorf("a kill is seen as more than unavailable: %v", h.unexpected)
	}
	end, err := c.info(c.leader(), leader)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		c.eventually(fmt.Sprintf("server %d is at the end", n), 10*time.Second, func() error {
			if now, err := c.info(n, stale); err != nil || now.GetVersion().GetIndex() < end.GetVersion().GetIndex() {
				return errors.Join(err, fmt.Errorf("it is at %d of %d", now.GetVersion().GetIndex(), end.GetVersion().GetIndex()))
			}
			return nil
		})
		names, err := c.networks(n, stale)
		if err != nil {
			t.Fatal(err)
		}
		lost := 0
		for name := range h.acknowledged {
			if !names[name] {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("server %d lacks %d of %d acknowledged writes", n, lost, len(h.acknowledged))
		}
	}
	t.Logf("%d writes acknowledged, %v through each server", len(h.acknowledged), h.through)
}

// writeThroughFollowers writes through each follower; whoever is asked next has it.
func (c *servers) writeThroughFollowers(t *testing.T) {
	leading := c.leader()
	for n := 1; n <= 3; n++ {
		name := fmt.Sprintf("through-%d", n)
		if err := c.apply(t.Context(), n, network(name, 1<<20-n)); err != nil {
			t.Fatalf("a write through server %d, while %d leads: %v", n, leading, err)
		}
		if names, err := c.networks(n, stale); err != nil || !names[name] {
			t.Errorf("server %d does not have what was written through it (%v)", n, err)
		}
		if names, err := c.networks(n%3+1, leader); err != nil || !names[name] {
			t.Errorf("server %d does not have what was written through server %d (%v)", n%3+1, n, err)
		}
	}
}

// restore saves, changes and restores through a follower.
func (c *servers) restore(t *testing.T) {
	follower := c.leader()%3 + 1
	server, file := "--server="+c.api(follower), filepath.Join(c.dir, "saved")
	zone := func(address string) {
		c.pv("apply", "--yes", "-f", c.manifest(`
apiVersion: provisionr/v1
kind: Zone
metadata: {name: kept}
spec:
  domain: kept.example
  records: [{name: host, addresses: ["`+address+`"]}]
`))
	}
	zone("192.0.2.1")
	c.pv("cluster", "snapshot", "save", file, server)
	saved, err := c.info(follower, leader)
	if err != nil {
		t.Fatal(err)
	}
	// Names that change advance the serial beyond what the snapshot says.
	for i := range 5 {
		zone(fmt.Sprintf("192.0.2.%d", 2+i))
	}
	if err := c.apply(t.Context(), follower, network("later", 1<<20-9)); err != nil {
		t.Fatal(err)
	}
	changed, err := c.info(follower, leader)
	if err != nil {
		t.Fatal(err)
	}
	serials := make([]uint32, 3)
	for n := range serials {
		c.eventually("the change is in DNS", 10*time.Second, func() error { return c.answers(n+1, "192.0.2.6", &serials[n]) })
	}

	c.pv("cluster", "snapshot", "restore", file, "--yes", server)
	for n := 1; n <= 3; n++ {
		c.eventually(fmt.Sprintf("server %d is in the new incarnation", n), 10*time.Second, func() error {
			now, err := c.info(n, stale)
			if err != nil {
				return err
			}
			if got, want := now.GetCluster().GetIncarnation(), saved.GetCluster().GetIncarnation()+1; got != want {
				return fmt.Errorf("it is in incarnation %d, want %d", got, want)
			}
			if now.GetVersion().GetIndex() <= changed.GetVersion().GetIndex() {
				return fmt.Errorf("the log index went back from %d to %d", changed.GetVersion().GetIndex(), now.GetVersion().GetIndex())
			}
			return nil
		})
		names, err := c.networks(n, stale)
		if err != nil || names["later"] || !names["through-1"] {
			t.Errorf("server %d: later %v, through-1 %v (%v)", n, names["later"], names["through-1"], err)
		}
		var serial uint32
		c.eventually("the old record is in DNS", 10*time.Second, func() error { return c.answers(n, "192.0.2.1", &serial) })
		// RFC 1982 section 3.2.
		if int32(serial-serials[n-1]) <= 0 {
			t.Errorf("server %d: the serial went from %d to %d", n, serials[n-1], serial)
		}
	}
	c.allVote()
	// What was restored lasts: the leader dies, and the rest takes a write.
	victim := c.leader()
	c.killServer(victim)
	if err := c.apply(t.Context(), victim%3+1, network("after", 1<<20-10)); err != nil {
		t.Fatal(err)
	}
	names, err := c.networks(victim, leader)
	if err != nil || names["later"] || !names["through-1"] || !names["after"] {
		t.Errorf("server %d came back with later %v, through-1 %v, after %v (%v)", victim, names["later"], names["through-1"], names["after"], err)
	}
}

// answers asks the nth server for host.kept.example and, if the address is the wanted one, stores the zone's serial.
func (c *servers) answers(n int, address string, serial *uint32) error {
	dig := []string{"+short", "+tries=1", "+time=2", "-p", strconv.Itoa(c.dnsPort(n)), "@127.0.0.1"}
	if got := output(c.t, "dig", append(dig, "host.kept.example", "A")...); got != address {
		return fmt.Errorf("server %d answers %q, want %q", n, got, address)
	}
	fields := strings.Fields(output(c.t, "dig", append(dig, "kept.example", "SOA")...))
	if len(fields) != 7 {
		return fmt.Errorf("server %d answers no SOA: %q", n, fields)
	}
	value, err := strconv.ParseUint(fields[2], 10, 32)
	*serial = uint32(value)
	return err
}
