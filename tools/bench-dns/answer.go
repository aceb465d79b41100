package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// header is the octets of a message's header.
const header = 12

var errCut = errors.New("it is cut")

// check reads an answer whole and says what is wrong with it.
func check(q *query, answer []byte) error {
	if len(answer) < len(q.packet)-11 {
		return errCut
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(answer[at:])) }
	flags, code := count(2), count(2)&15
	records, authorities, additional := count(6), count(8), count(10)
	question := q.packet[header : len(q.packet)-11]
	switch {
	case flags&0x8400 != 0x8400 || flags&0x0200 != 0:
		return fmt.Errorf("its flags are %#04x: not an authoritative answer that is whole", flags)
	case !bytes.Equal(answer[header:header+len(question)], question):
		return errors.New("it is of another question")
	case q.kind == missing && (code != 3 || records != 0 || authorities == 0):
		return fmt.Errorf("code %d, %d answers, %d authorities: not a name error", code, records, authorities)
	case q.kind != missing && (code != 0 || records != 1):
		return fmt.Errorf("code %d, %d answers: not one record", code, records)
	}
	at, edns := header+len(question), false
	for k := range records + authorities + additional {
		r, next, err := readRecord(answer, at)
		if err != nil {
			return err
		}
		if k == 0 {
			if err := r.is(q, answer); err != nil {
				return err
			}
		}
		edns = edns || r.rtype == typeOPT && k >= records+authorities
		at = next
	}
	if !edns || at != len(answer) {
		return errors.New("it has no OPT record, or ends with something else")
	}
	return nil
}

// record is one resource record of a message.
type record struct {
	rtype uint16
	// data begins at octet at of the message.
	data []byte
	at   int
}

// is says how the first record of an answer differs from what was asked for.
func (r record) is(q *query, message []byte) error {
	switch q.kind {
	case addressOf:
		if b := address(q.host).As4(); r.rtype != typeA || !bytes.Equal(r.data, b[:]) {
			return fmt.Errorf("type %d, data %x: not the address of %s", r.rtype, r.data, hostName(q.host))
		}
	case pointerOf:
		name, _, err := readName(message, r.at)
		if err != nil {
			return err
		}
		if r.rtype != typePTR || !bytes.Equal(name, appendName(nil, hostName(q.host))) {
			return fmt.Errorf("type %d, name %q: not %s", r.rtype, name, hostName(q.host))
		}
	case missing:
		if r.rtype != typeSOA {
			return fmt.Errorf("the authority's type is %d, not SOA", r.rtype)
		}
	}
	return nil
}

func readRecord(message []byte, at int) (record, int, error) {
	_, at, err := readName(message, at)
	if err != nil || at+10 > len(message) {
		return record{}, 0, errCut
	}
	r := record{rtype: binary.BigEndian.Uint16(message[at:]), at: at + 10}
	end := r.at + int(binary.BigEndian.Uint16(message[at+8:]))
	if end > len(message) {
		return record{}, 0, errCut
	}
	r.data = message[r.at:end]
	return r, end, nil
}

// readName returns a name without compression (RFC 1035 section 4.1.4), and where what follows it begins.
func readName(message []byte, at int) (name []byte, next int, err error) {
	for hops := 0; hops < 16; {
		if at >= len(message) {
			return nil, 0, errCut
		}
		switch length := int(message[at]); {
		case length == 0:
			if next == 0 {
				next = at + 1
			}
			return append(name, 0), next, nil
		case length >= 0xc0:
			if at+2 > len(message) {
				return nil, 0, errCut
			}
			if next == 0 {
				next = at + 2
			}
			at = int(binary.BigEndian.Uint16(message[at:])) & 0x3fff
			hops++
		case at+1+length > len(message):
			return nil, 0, errCut
		default:
			name = append(name, message[at:at+1+length]...)
			at += 1 + length
		}
	}
	return nil, 0, errors.New("a name points in circles")
}
