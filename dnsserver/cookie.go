package dnsserver

import (
	"encoding/binary"
	"net/netip"
)

// Lengths in octets of RFC 7873 section 4 and RFC 9018 section 4.
const (
	clientCookie = 8
	serverCookie = 16
)

// Ages of a server cookie in seconds (RFC 9018 section 4.3).
const (
	cookieLife   = 3600
	cookieRenew  = 1800
	cookieFuture = 300
)

const cookieVersion = 1

// secrets are the keys of server cookies: cookies are made with the first and accepted of both. A zero key is none.
type secrets [2][16]byte

// check reports whether a cookie option has a server cookie that one of our servers gave that client at that address.
// Fresh says that the client may go on using it.
func (s *secrets) check(cookie []byte, client netip.Addr, now uint32) (valid, fresh bool) {
	if len(cookie) != clientCookie+serverCookie || cookie[clientCookie] != cookieVersion {
		return false, false
	}
	// The clock of this field wraps (RFC 1982).
	age := int32(now - binary.BigEndian.Uint32(cookie[clientCookie+4:]))
	if age > cookieLife || age < -cookieFuture {
		return false, false
	}
	sum := binary.LittleEndian.Uint64(cookie[clientCookie+8:])
	for i := range s {
		if s[i] != ([16]byte{}) && cookieSum(&s[i], cookie[:clientCookie+8], client) == sum {
			return true, i == 0 && age <= cookieRenew
		}
	}
	return false, false
}

// give appends the whole cookie option's value for a client: its own cookie and a new one of ours.
func (s *secrets) give(dst, cookie []byte, client netip.Addr, now uint32) []byte {
	start := len(dst)
	dst = append(append(dst, cookie[:clientCookie]...), cookieVersion, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, now)
	return binary.LittleEndian.AppendUint64(dst, cookieSum(&s[0], dst[start:], client))
}

// cookieSum is the hash of RFC 9018 section 4.4: head is the client's cookie, version, reserved octets and time.
func cookieSum(key *[16]byte, head []byte, client netip.Addr) uint64 {
	var buf [clientCookie + 8 + 16]byte
	n := copy(buf[:], head)
	if client.Is4() {
		addr := client.As4()
		n += copy(buf[n:], addr[:])
	} else {
		addr := client.As16()
		n += copy(buf[n:], addr[:])
	}
	return sipHash(key, buf[:n])
}
