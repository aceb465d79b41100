// Package tsig signs and verifies DNS messages with shared keys (RFC 8945), octets in, octets out.
//
// [Verify] takes a query apart and says in a [Session] what is to be answered; every message of the answer goes through
// [Session.Sign], also those of a transfer, which follow from each other. [Begin] is the other side: it signs a query of our
// own, and [Session.Accept] checks what comes back.
//
// What is accepted:
//
//   - HMAC with SHA-256, SHA-384 or SHA-512 and the whole of it: a shortened MAC gets BADTRUNC even where it is right.
//   - A message as old as its fudge says, but never older than [MaxFudge]. Within that window the same octets are
//     accepted again: transfers and questions change nothing.
//
// Order of the checks: form, key, MAC, time, length of the MAC (RFC 8945 section 5.2), so that nothing is said about time to
// one who has no key. MACs are compared in constant time. The package does no I/O and reads no clock.
package tsig
