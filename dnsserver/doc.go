// Package dnsserver is an authoritative DNS server over UDP and TCP (RFC 1035, RFC 7766).
//
// It answers from the zones that were last set, an atomic pointer that readers take without a lock, and refuses every
// other question, unless its owner gives it a [Config.Fallback]. It never recurses.
//
// What it decides (responder.go) is apart from how messages come and go: over UDP many at a time, by recvmmsg and
// sendmmsg, from a socket for each processor (udp.go, socket.go; mmsg.go alone holds what is unsafe), over TCP one connection a
// goroutine (tcp.go). What takes more than a look-up - transfers, signing as asked, the fallback - runs in goroutines of
// its own behind one bound. Everything else allocates nothing.
//
// Nobody is flooded through it: sources that are not known get over UDP at most three times the octets that they sent,
// and a bounded number of answers a second to each network (limit.go), unless they prove by a cookie (cookie.go,
// RFC 7873, RFC 9018) that they are where they say.
//
// Bounds: TCP connections, in all, of unknown sources and of one network of these, their idle time and the time that a client has to read an
// answer, queries that wait, the size of queries. What exceeds them is closed, dropped or answered FORMERR, as DNS
// clients expect; nothing waits for ever.
package dnsserver
