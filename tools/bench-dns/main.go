// Command bench-dns measures our DNS server beside NSD, Knot and CoreDNS, on the same names and queries, and beside an echo that
// is the limit of what one thread can receive and send. tools/bench-dns/run builds what it needs and starts it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is what the flags say.
type bench struct {
	stage
	ctx       context.Context
	rounds    int
	length    time.Duration
	serverCPU int
	loadCPU   int
}

func main() {
	log.SetFlags(0)
	// Servers die with the thread that started them.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := bench{ctx: ctx}
	sizes := flag.String("hosts", "10000,100000", "numbers of hosts to measure with")
	flag.StringVar(&b.dir, "dir", "", "directory for everything (required)")
	flag.StringVar(&b.provisionr, "provisionr", "", "our program (required)")
	flag.StringVar(&b.echo, "echo", "", "the echo (required)")
	flag.StringVar(&b.coredns, "coredns", "", "CoreDNS; it is left out where this is empty")
	flag.IntVar(&b.rounds, "rounds", 15, "rounds in which all servers take turns; twice as many, half as long, for latency")
	flag.DurationVar(&b.length, "length", time.Second, "how long a server is loaded in a round")
	flag.IntVar(&b.serverCPU, "server-cpu", 0, "processor that servers are pinned to")
	flag.IntVar(&b.loadCPU, "load-cpu", 1, "processor that the load comes from")
	flag.Parse()
	for size := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(size)
		if err == nil {
			err = b.size(hosts(n))
		}
		if err != nil {
			log.Fatalf("bench-dns: %v", err)
		}
	}
}

// size measures with so many hosts: pinned, then unpinned.
func (b bench) size(n hosts) error {
	b.hosts = n
	root := filepath.Join(b.dir, fmt.Sprint(int(n)))
	b.dir = root
	for i := range b.ports {
		var err error
		if b.ports[i], err = freePort(); err != nil {
			return err
		}
	}
	if err := b.writeZones(); err != nil {
		return err
	}
	queries := n.queries(1 << 18)
	b.cpu, b.threads = b.serverCPU, 1
	empty, err := b.empty()
	if err != nil {
		return err
	}
	fmt.Printf("%d hosts, servers on one processor and the load on another\n", n)
	err = b.with(queries, func(all []*server) error {
		t := newTable(fmt.Sprintf("dns_%dk", n/1000))
		if err := b.throughput(t, all, queries, b.loadCPU); err != nil {
			return err
		}
		t.report(true)
		if err := b.latency(t, all, queries); err != nil {
			return err
		}
		return b.memory(t, all, empty)
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d hosts, nothing pinned\n", n)
	b.cpu, b.threads = -1, runtime.NumCPU()
	return b.with(queries, func(all []*server) error {
		t := newTable(fmt.Sprintf("dns_%dk_unpinned", n/1000))
		if err := b.throughput(t, all, queries, -1); err != nil {
			return err
		}
		t.report(false)
		return nil
	})
}

// settle is how long a server is left alone before its memory is read.
const settle = 10 * time.Second

// empty returns the memory of each server that serves no names, and leaves ours with the names applied, in its data.
func (b bench) empty() (map[string]int, error) {
	sizes, s := map[string]int{}, b.stage
	s.hosts, s.dir = 0, filepath.Join(b.dir, "empty")
	starts := []func() (*server, error){s.nsd, s.knot, b.ours}
	for _, start := range starts {
		one, err := start()
		if err != nil {
			return nil, err
		}
		b.pause(settle)
		if sizes[one.name], err = one.memory(); err == nil && one.name == "provisionr" {
			err = b.apply()
		}
		one.stop()
		if err = errors.Join(err, b.ctx.Err()); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

func (b bench) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
	}
}

// with starts all servers, waits until each answers right, calls use, and ends them whatever happens.
func (b bench) with(queries []query, use func([]*server) error) error {
	var all []*server
	defer func() {
		for _, s := range all {
			s.stop()
		}
	}()
	add := func(s *server, err error) error {
		if err != nil {
			return err
		}
		all = append(all, s)
		return s.await("it answers", func() bool {
			_, err := load{port: s.port, queries: queries, length: 100 * time.Millisecond, cpu: b.loadCPU, sample: s.sample}.run()
			return err == nil
		})
	}
	starts := []func() (*server, error){b.ours, b.nsd, b.knot, b.coreDNS}
	if b.coredns == "" {
		starts = starts[:3]
	}
	for _, start := range starts {
		if err := add(start()); err != nil {
			return err
		}
	}
	beyond, err := answerSizes(all[0], queries)
	if err != nil {
		return err
	}
	if err := add(b.limit(beyond)); err != nil {
		return err
	}
	for _, s := range all {
		// Every answer is read whole here.
		if _, err := b.send(s, load{queries: queries, length: b.length, cpu: b.loadCPU, sample: 1}); err != nil {
			return err
		}
	}
	return use(all)
}

// answerSizes asks a server one query of each kind and returns how much longer its answers are.
func answerSizes(s *server, queries []query) (beyond [kinds]int, err error) {
	for k := range kinds {
		for _, q := range queries {
			if q.kind == k {
				answer, err := ask(s.port, q.packet)
				if err != nil {
					return beyond, fmt.Errorf("%s: %w", s.name, err)
				}
				beyond[k] = len(answer) - len(q.packet)
				fmt.Printf("  a query of %d octets has an answer of %d\n", len(q.packet), len(answer))
				break
			}
		}
	}
	return beyond, nil
}
