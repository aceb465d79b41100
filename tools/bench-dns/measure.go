package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"
)

// table holds what was measured, by server, a value for each round.
type table struct {
	name string
	// second is answers in a second, work answers in a second of the server's CPU.
	second, work map[string][]float64
}

func newTable(name string) *table {
	return &table{name: name, second: map[string][]float64{}, work: map[string][]float64{}}
}

// throughput loads the servers in turn, each round beginning with the next one, with as much as they take.
func (b bench) throughput(t *table, all []*server, queries []query, cpu int) error {
	for round := range b.rounds {
		for i := range all {
			s := all[(round+i)%len(all)]
			before := s.process.cpu()
			o, err := b.send(s, load{queries: queries, length: b.length, cpu: cpu})
			used := s.process.cpu() - before
			if err != nil {
				return err
			}
			if o.lost > o.answered/100 {
				fmt.Printf("  %s did not answer %d of %d queries\n", s.name, o.lost, o.lost+o.answered)
			}
			t.second[s.name] = append(t.second[s.name], o.perSecond())
			t.work[s.name] = append(t.work[s.name], float64(o.answered)/max(used, tick).Seconds())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.work)) {
		fmt.Printf("  %-12s %9.0f a second %9.0f a CPU second\n", name, median(t.second[name]), median(t.work[name]))
	}
	return nil
}

// latency loads each server with half of what it has answered before, then all with half of what the slowest of ours and its
// peers has. A host that has other guests stops each of them for milliseconds now and then, which is many queries: so rounds
// are short, and most have no such stop.
func (b bench) latency(t *table, all []*server, queries []query) error {
	slowest := slices.Min([]float64{median(t.second["provisionr"]), median(t.second["nsd"]), median(t.second["knot"])})
	err := b.latencyAt(t, "p99", all, queries, func(s *server) float64 { return median(t.second[s.name]) / 2 })
	if err != nil {
		return err
	}
	some := slices.DeleteFunc(slices.Clone(all), func(s *server) bool { return s.name == "coredns" })
	return b.latencyAt(t, "p99_same_rate", some, queries, func(*server) float64 { return slowest / 2 })
}

func (b bench) latencyAt(t *table, what string, all []*server, queries []query, rate func(*server) float64) error {
	p99 := map[string][]float64{}
	rounds := 2 * b.rounds
	for round := range rounds {
		for i := range all {
			s := all[(round+i)%len(all)]
			o, err := b.send(s, load{queries: queries, length: b.length / 2, rate: rate(s), cpu: b.loadCPU})
			if err != nil {
				return err
			}
			p99[s.name] = append(p99[s.name], o.latency.quantile(0.99).Seconds()*1000)
			if round == rounds/2 {
				fmt.Printf("  %-12s at %6.0f a second: 50%% %.3f ms, 99%% %.3f ms, 99.9%% %.3f ms, lost %d\n", s.name, rate(s),
					o.latency.quantile(0.5).Seconds()*1000, o.latency.quantile(0.99).Seconds()*1000, o.latency.quantile(0.999).Seconds()*1000, o.lost)
			}
		}
	}
	for _, s := range all {
		result(t.name+"_"+what+"_"+s.name, median(p99[s.name]), "ms", none, 0)
	}
	// Against each peer on its own: the better of two in each round would be the luckier.
	for _, peer := range []string{"nsd", "knot"} {
		result(t.name+"_"+what+"_vs_"+peer, median(perRound(p99["provisionr"], slices.Min[[]float64], p99[peer])), "x", atMost, 1)
	}
	return nil
}

// send sends a load to a server, again where nothing is answered.
func (b bench) send(s *server, l load) (o *outcome, err error) {
	l.port, l.sample = s.port, min(s.sample, cmp.Or(l.sample, s.sample))
	for range 5 {
		if o, err = l.run(); !errors.Is(err, errSilent) || b.ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return o, b.ctx.Err()
}

// memory reports how much larger the servers are with the names than without.
func (b bench) memory(t *table, all []*server, empty map[string]int) error {
	b.pause(settle)
	grown := map[string]float64{}
	for _, s := range all {
		size, err := s.memory()
		if err = errors.Join(err, b.ctx.Err()); err != nil {
			return err
		}
		if before, ok := empty[s.name]; ok {
			grown[s.name] = float64(size-before) / 1e6
			fmt.Printf("  %-12s %.1f MB empty, %.1f MB with the names\n", s.name, float64(before)/1e6, float64(size)/1e6)
			result(t.name+"_memory_"+s.name, grown[s.name], "MB", none, 0)
		}
	}
	goal := atMost
	if b.hosts < 100000 {
		goal = none
	}
	result(t.name+"_memory_vs_knot", grown["provisionr"]/grown["knot"], "x", goal, 0.5)
	return nil
}

// report prints what our server is in comparison.
func (t *table) report(pinned bool) {
	peer, limit, core := none, none, none
	wanted := map[string][2]float64{"dns_10k": {1.3, 0.92}, "dns_100k": {1.35, 0.85}}[t.name]
	if pinned && wanted[0] > 0 {
		peer, limit, core = atLeast, atLeast, atLeast
	}
	for _, name := range slices.Sorted(maps.Keys(t.work)) {
		result(t.name+"_rate_"+name, median(t.second[name]), "queries/s", none, 0)
		result(t.name+"_work_"+name, median(t.work[name]), "queries/CPU-s", none, 0)
	}
	for _, of := range []struct {
		what   string
		values map[string][]float64
	}{{"work", t.work}, {"rate", t.second}} {
		ours := of.values["provisionr"]
		name := t.name + "_" + of.what + "_vs_"
		result(name+"better_peer", median(perRound(ours, slices.Max[[]float64], of.values["nsd"], of.values["knot"])), "x", peer, wanted[0])
		result(name+"echo", median(perRound(ours, slices.Max[[]float64], of.values["echo"])), "x", limit, wanted[1])
		if slow := of.values["coredns"]; slow != nil {
			result(name+"coredns", median(perRound(ours, slices.Max[[]float64], slow)), "x", core, 8)
		}
		// The goals are of the server's work; how many a second depends on who waits for whom.
		peer, limit, core = none, none, none
	}
}

// perRound divides our values by those of others, of which pick says which one of a round.
func perRound(ours []float64, pick func([]float64) float64, others ...[]float64) []float64 {
	ratios := make([]float64, len(ours))
	for round, v := range ours {
		var beside []float64
		for _, o := range others {
			beside = append(beside, o[round])
		}
		ratios[round] = v / pick(beside)
	}
	return ratios
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

type goal int

const (
	none goal = iota
	atLeast
	atMost
)

// result prints a figure for those who compare runs.
func result(name string, value float64, unit string, g goal, wanted float64) {
	target, verdict := fmt.Sprint(wanted), "ok"
	switch {
	case g == none:
		target = "none"
	case g == atLeast && !(value >= wanted), g == atMost && !(value <= wanted):
		verdict = "short"
	}
	digits := 3
	if value >= 100 {
		digits = 0
	}
	fmt.Printf("RESULT %s %.*f %s goal %s %s\n", name, digits, value, unit, target, verdict)
}

// ask sends a query and returns the answer.
func ask(port int, packet []byte) ([]byte, error) {
	conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	return answer[:n], err
}
