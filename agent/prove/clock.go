package prove

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	ntpresource "github.com/provisionr/provisionr/agent/resource/ntp"
	"github.com/provisionr/provisionr/internal/ntp"
)

const (
	// defaultOffset is the largest right offset where the pool states none.
	defaultOffset = 100 * time.Millisecond
	// maxTimeServers bounds how many time servers are asked; timeTries are the samples of which the best counts.
	maxTimeServers = 4
	timeTries      = 3
)

// clock proves the machine's time beside the first of its time servers that answers.
func (p *Prover) clock(ctx context.Context, s *desired.State) verdict {
	most := s.Pool.GetMaxClockOffset().AsDuration()
	if most <= 0 {
		most = defaultOffset
	}
	expected := "within " + most.String() + " of its time servers"
	note := ""
	if may, err := ntpresource.MaySetClock(p.host); err == nil && !may {
		note = "; observed only: this machine may not set its clock"
	}
	servers := s.Machine.GetNtpServers()
	server, best := p.firstTime(ctx, servers[:min(len(servers), maxTimeServers)])
	if server == "" {
		return unprovable(expected, "no time server answers"+note, "see that the machine reaches its time servers on UDP port 123")
	}
	// Half of the way there and back is the sample's error (RFC 5905 section 8).
	switch off := best.Offset.Abs(); {
	case off <= most:
		return proven(expected, "within "+most.String()+" of "+server+note)
	case off <= most+best.RTT/2:
		return unprovable(expected, "the way to "+server+" is too slow to tell"+note, "use a time server that is nearer")
	}
	side := "behind"
	if best.Offset < 0 {
		side = "ahead of"
	}
	remedy := "see chronyc sources and chronyc tracking on the machine"
	if note != "" {
		remedy = "set the clock of the machine's host, or see whether the time server is right"
	}
	return failed(expected, fmt.Sprintf("about %s %s %s", class(best.Offset.Abs()), side, server)+note, remedy)
}

// firstTime asks all servers at once and returns the first one in order that answered, with its best sample.
func (p *Prover) firstTime(ctx context.Context, servers []string) (string, ntp.Answer) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	best := make([]*ntp.Answer, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() {
			for range timeTries {
				a, err := p.time(ctx, server)
				if err != nil {
					return
				}
				if best[i] == nil || a.RTT < best[i].RTT {
					best[i] = &a
				}
			}
		})
	}
	wg.Wait()
	for i, a := range best {
		if a != nil {
			return servers[i], *a
		}
	}
	return "", ntp.Answer{}
}

// class puts a duration into one of 1, 2, 5 times a power of ten: the text of a proof must not change with every sample.
func class(d time.Duration) time.Duration {
	step := time.Millisecond
	for {
		for _, c := range []time.Duration{step, 2 * step, 5 * step} {
			// The bounds between classes are in their geometric middle.
			if float64(d) < float64(c)*1.5 {
				return c
			}
		}
		step *= 10
	}
}
