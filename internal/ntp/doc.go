// Package ntp asks for the time and tells it, by the simple network time protocol (RFC 5905 section 14, RFC 4330).
//
// It is for observing clocks, never for setting one, and depends on the standard library only. A query takes one sample;
// its error is at most half the round trip. Packets are checked as RFC 5905 demands of a client: what answers must repeat
// the transmit timestamp of the question, be synchronised and be no kiss-o'-death.
package ntp
