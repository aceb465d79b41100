// Package dnsserver is an authoritative DNS server over UDP and TCP (RFC 1035, RFC 7766).
//
// It answers from the zones that were last set, an atomic pointer that readers take without a lock, and refuses every
// other question, unless its owner gives it a [Config.Fallback]. It never recurses.
//
// Bounds: TCP connections, their idle time, the messages in flight of the fallback. What exceeds them is closed or
// dropped, as DNS clients expect; nothing waits for ever.
package dnsserver
