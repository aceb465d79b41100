// Package transfer gives copies of zones to secondary servers: whole ones (AXFR, RFC 5936), differences (IXFR, RFC 1995), and
// word of changes (NOTIFY, RFC 1996).
//
// Every transfer needs a TSIG key of its zone (RFC 8945, [tsig]); all else is refused. A zone that is signed online is not
// transferred at all: the copy could not sign.
//
// Invariants:
//
//   - A transfer is of one version of the zone, the one that was answered from when it began.
//   - Differences are those of the versions that were published: [Server.Delta] learns of each before it is answered from. Where
//     they do not reach back far enough, or are longer than the zone, the whole zone is sent in their place.
//   - A zone without keys costs nothing: no differences are kept.
//   - What is kept is bounded: the differences of a zone in octets, the transfers at a time, and for each zone and secondary one
//     NOTIFY under way and one more to follow, which speaks for all changes until then.
package transfer
