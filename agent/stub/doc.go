// Package stub is the machine's own name service, on 127.0.0.62 port 53, UDP and TCP.
//
// It answers the names of its own pool, and of the pools that the desired state refers to, from that state alone: forward
// and reverse, with or without servers. All other names of the cluster it asks of the cluster's DNS servers, and
// remembers the answers for the time when none of them lives. Every other name goes to the servers that the machine had
// before.
//
// Bounds: 256 queries in flight, 192 of them to other servers than the cluster's, 16 for one question (so that a loop
// through another resolver ends), 1024 remembered answers of at most 4 KiB. There are no timers while nothing is asked.
package stub
