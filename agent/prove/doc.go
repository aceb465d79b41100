// Package prove has a machine prove its assumptions, and those of its peers that only another machine can prove.
//
// A proof says what is expected, what was found, and what to do. It is proven, failed, or unprovable, which means that
// nobody can tell right now: no time server answers, a peer is not up yet. Own proofs have the assumptions os, packages,
// files, users, hostname, dns.forward, dns.reverse, clock, firewall, services and ssh; proofs about peers have peer.dns and
// peer.firewall.
//
// Names are asked at every place that could tell them differently: the agent's stub, the name servers of resolv.conf, the
// cluster's own servers, and the way that programs go (/etc/hosts first). A denied port proves nothing by being silent, since
// a dead machine is silent too: it counts only together with an allowed port that answers.
//
// Invariants: texts do not change while nothing has changed, so that only changes are reported (measured values are put
// into classes); a whole set is done within [Timeout], where sshd answers within it; the number of probes is bounded: above
// 20 members a machine looks at its 4 successors in the ring of slots.
package prove
