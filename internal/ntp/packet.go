package ntp

import (
	"encoding/binary"
	"errors"
	"time"
)

// Port is the protocol's UDP port.
const Port = 123

// packetSize is the header of RFC 5905 figure 8; extension fields and a MAC may follow and are ignored.
const packetSize = 48

// Modes of RFC 5905 figure 10.
const (
	modeClient = 3
	modeServer = 4
)

const (
	version = 4
	// notSynchronised is the leap indicator of a clock that never was set (RFC 5905 figure 9).
	notSynchronised = 3
	// maxStratum: 16 and above mean unsynchronised, 0 is a kiss-o'-death (RFC 5905 figure 11).
	maxStratum = 15
)

// timestamp is NTP's: seconds since 1900 in the upper 32 bits, the fraction in the lower (RFC 5905 figure 3).
type timestamp uint64

// epochOffset is the seconds from 1900 to 1970 (RFC 5905 figure 4).
const epochOffset = 2208988800

func fromTime(t time.Time) timestamp {
	seconds := uint64(t.Unix() + epochOffset)
	fraction := uint64(t.Nanosecond()) << 32 / uint64(time.Second)
	return timestamp(seconds<<32 | fraction)
}

// sub is t-o as a signed distance, which is right across the end of an era (RFC 5905 section 6) for clocks less than 68
// years apart.
func (t timestamp) sub(o timestamp) time.Duration {
	distance := int64(t - o)
	seconds, fraction := distance>>32, distance&0xffffffff
	return time.Duration(seconds)*time.Second + time.Duration(fraction*int64(time.Second)>>32)
}

// packet is the part of the header that is used.
type packet struct {
	leap, version, mode, stratum uint8
	poll, precision              int8
	rootDelay, rootDispersion    uint32
	referenceID                  uint32
	reference                    timestamp
	origin, receive, transmit    timestamp
}

var errShort = errors.New("packet is too short")

func parse(data []byte) (packet, error) {
	if len(data) < packetSize {
		return packet{}, errShort
	}
	be := binary.BigEndian
	return packet{
		leap: data[0] >> 6, version: data[0] >> 3 & 7, mode: data[0] & 7, stratum: data[1], poll: int8(data[2]), precision: int8(data[3]),
		rootDelay: be.Uint32(data[4:]), rootDispersion: be.Uint32(data[8:]), referenceID: be.Uint32(data[12:]),
		reference: timestamp(be.Uint64(data[16:])), origin: timestamp(be.Uint64(data[24:])),
		receive: timestamp(be.Uint64(data[32:])), transmit: timestamp(be.Uint64(data[40:])),
	}, nil
}

func (p packet) bytes() []byte {
	be := binary.BigEndian
	data := make([]byte, 0, packetSize)
	data = append(data, p.leap<<6|p.version<<3|p.mode, p.stratum, byte(p.poll), byte(p.precision))
	data = be.AppendUint32(data, p.rootDelay)
	data = be.AppendUint32(data, p.rootDispersion)
	data = be.AppendUint32(data, p.referenceID)
	for _, t := range []timestamp{p.reference, p.origin, p.receive, p.transmit} {
		data = be.AppendUint64(data, uint64(t))
	}
	return data
}
