// Package member is what the servers of one cluster say to each other on port 7445, beside Raft itself.
//
// One port carries two protocols, told apart by ALPN (RFC 7301) after a mutual TLS handshake: Raft's own stream and
// gRPC. [Listener] accepts and splits, [Conns] dials, [Service] answers MemberService. Who may connect and how a peer is
// recognised is said by the TLS configurations that the owner passes in: they must demand and verify a certificate of a
// server of this cluster and, when dialling, of the very member that was meant.
package member
