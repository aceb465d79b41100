package dnsserver

import "sync/atomic"

// Stats counts what a server did since it was made.
type Stats struct {
	// Queries are all messages that came, TCP those of them that came over it.
	Queries, TCP uint64
	// Positive, NoData and NameError are complete answers from the zones; Truncated those that were cut.
	Positive, NoData, NameError, Truncated uint64
	// Refused are answers to questions about names of others and to what is not allowed, Failed all other codes.
	Refused, Failed uint64
	// Ignored are messages that are no queries.
	Ignored uint64
	// Limited are answers that the rate limit kept back, Slipped those that it cut.
	Limited, Slipped uint64
	// Deferred went to the fallback, to online signing or to transfers; Overflowed found no room there.
	Deferred, Overflowed uint64
	// Cookies are queries with a valid server cookie.
	Cookies uint64
	// Unsent are answers that the kernel did not take.
	Unsent uint64
	// Connections were accepted, Rejected closed at once, since there were too many.
	Connections, Rejected uint64
}

// stat is the place of a counter.
type stat int

const (
	statQueries stat = iota
	statTCP
	statPositive
	statNoData
	statNameError
	statTruncated
	statRefused
	statFailed
	statIgnored
	statLimited
	statSlipped
	statDeferred
	statOverflowed
	statCookies
	statUnsent
	statConnections
	statRejected
	statCount
)

// tally counts without synchronisation, for one goroutine.
type tally [statCount]uint64

// counters are what tallies are added to. They are as far from others as cores prefetch.
type counters struct {
	_ [128]byte
	n [statCount]atomic.Uint64
	_ [128]byte
}

// add adds a tally and clears it.
func (c *counters) add(t *tally) {
	for i, n := range t {
		if n != 0 {
			c.n[i].Add(n)
			t[i] = 0
		}
	}
}

// Stats returns the counters. It may be called at any time.
func (s *Server) Stats() Stats {
	var t tally
	for i := range s.counters {
		for j := range t {
			t[j] += s.counters[i].n[j].Load()
		}
	}
	return Stats{
		Queries: t[statQueries], TCP: t[statTCP],
		Positive: t[statPositive], NoData: t[statNoData], NameError: t[statNameError], Truncated: t[statTruncated],
		Refused: t[statRefused], Failed: t[statFailed], Ignored: t[statIgnored],
		Limited: t[statLimited], Slipped: t[statSlipped], Deferred: t[statDeferred], Overflowed: t[statOverflowed],
		Cookies: t[statCookies], Unsent: t[statUnsent], Connections: t[statConnections], Rejected: t[statRejected],
	}
}
