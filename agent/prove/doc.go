// Package prove has a machine prove its assumptions, and those of its peers that only another machine can prove.
//
// A proof says what is expected, what was found, and what to do. It is proven, failed, or unprovable, which means that
// nobody can tell right now, or not on this machine: no time server answers, a peer is not up yet, the kernel is the host's.
//
// Every machine proves os, packages, files, users, hostname, dns.forward, dns.reverse, resolver, clock, firewall, services and
// ssh. Where the pool asks for them: repositories, downloads, sysctl, modules, timezone, locale, swap, filesystems, network,
// vpn, ospolicy, firewall.egress and, with the profile of that name, hadoop.fqdn, hadoop.address, hadoop.ptr, hadoop.getent,
// hadoop.loopback and hadoop.clock. Proofs about peers are peer.dns, peer.firewall and vpn.peer.
//
// A resource's own check is heard, and it can refute; but what can be seen without it is looked at as well, in another way:
// dpkg's record, /proc, the kernel's interfaces and routes, the hash of a file. No program is run.
//
// Names are asked at every place that could tell them differently: the agent's stub, the name servers of resolv.conf, the
// cluster's own servers, and the way that programs go (/etc/hosts first), in both directions. A denied port proves nothing by
// being silent, since a dead machine is silent too: it counts only together with a port that answers.
//
// Invariants: texts do not change while nothing has changed, so that only changes are reported (measured values are put
// into classes); a whole set is done within [Timeout], where sshd answers within it; the number of probes is bounded: above
// 20 members a machine looks at its 4 successors in the ring of slots.
package prove
