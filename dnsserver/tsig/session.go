package tsig

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"
)

// Code is a TSIG error (RFC 8945 section 3).
type Code uint16

// The errors of RFC 8945 section 3. An answer with one of them has the response code NOTAUTH.
const (
	OK            Code = 0
	BadSignature  Code = 16
	BadKey        Code = 17
	BadTime       Code = 18
	BadTruncation Code = 22
)

// String returns the code's mnemonic.
func (c Code) String() string {
	switch c {
	case OK:
		return "NOERROR"
	case BadSignature:
		return "BADSIG"
	case BadKey:
		return "BADKEY"
	case BadTime:
		return "BADTIME"
	case BadTruncation:
		return "BADTRUNC"
	}
	return fmt.Sprintf("TSIG%d", uint16(c))
}

// MaxFudge is how far the clocks of two servers may differ, and so how long a message can be replayed; it is also what our own
// messages allow (RFC 8945 section 10 recommends it).
const MaxFudge = 300 * time.Second

// Session is one query and its answers. It is not safe for concurrent use.
type Session struct {
	key Key
	// name and algorithm are what the other side called them, also where we have no such key.
	name, algorithm string
	code            Code
	// time is when the query was signed, in seconds since 1970.
	time uint64
	// last is the MAC of the message before; follows says that the next message is not the first answer.
	last    []byte
	follows bool
}

// Verify checks the signature of a query against the keys that count for it. It returns the query without its TSIG record, in
// octets of its own, and the session in which to answer it; where its Code is not OK the query must only be answered with
// NOTAUTH. Errors are [ErrUnsigned] and [ErrFormat].
func Verify(keys []Key, msg []byte, now time.Time) ([]byte, *Session, error) {
	r, err := parse(msg)
	if err != nil {
		return nil, nil, err
	}
	s := &Session{name: r.name, algorithm: r.algorithm, time: r.time}
	stripped := r.strip(msg)
	i := slices.IndexFunc(keys, func(k Key) bool { return k.name == r.name && k.algorithm.wire() == r.algorithm })
	if i < 0 || keys[i].IsZero() {
		s.code = BadKey
		return stripped, s, nil
	}
	s.key = keys[i]
	if s.code, err = s.check(&r, stripped, now); err != nil {
		return nil, nil, err
	}
	return stripped, s, nil
}

// Begin signs a query of ours. It returns the query with its TSIG record, and the session in which to accept the answer.
func Begin(key Key, msg []byte, now time.Time) ([]byte, *Session) {
	s := &Session{key: key, name: key.name, algorithm: key.algorithm.wire()}
	return s.Sign(slices.Clone(msg), now), s
}

// Code says what is wrong with the query's signature, or OK.
func (s *Session) Code() Code { return s.code }

// Key returns the query's key. It is the zero key where we have none of that name.
func (s *Session) Key() Key { return s.key }

// Overhead returns how many octets Sign adds at most.
func (s *Session) Overhead() int {
	return len(s.name) + fixed + len(s.algorithm) + 16 + s.key.algorithm.size() + 6
}

// Sign appends the TSIG record to the next message of the session. Where the query's key or MAC was bad, it only repeats that
// (RFC 8945 section 5.3.2).
func (s *Session) Sign(msg []byte, now time.Time) []byte {
	r := record{
		name: s.name, algorithm: s.algorithm, time: uint64(now.Unix()), fudge: uint16(MaxFudge / time.Second),
		id: binary.BigEndian.Uint16(msg), code: s.code,
	}
	switch s.code {
	case BadKey, BadSignature:
		return r.append(msg)
	case BadTime:
		// The client's time makes the answer's MAC valid for it; ours tells it how far it is off.
		r.other = appendTime(nil, r.time)
		r.time = s.time
	}
	r.mac = s.sum(&r, msg)
	s.last, s.follows = r.mac, s.last != nil
	return r.append(msg)
}

// Accept checks the next message of the answer to a query of ours and returns it without its TSIG record, in octets of its own.
func (s *Session) Accept(msg []byte, now time.Time) ([]byte, error) {
	r, err := parse(msg)
	if err != nil {
		return nil, err
	}
	stripped := r.strip(msg)
	if r.name != s.name || r.algorithm != s.algorithm {
		return nil, errors.New("the answer is signed with another key")
	}
	if len(r.mac) == 0 && r.code != OK {
		return nil, fmt.Errorf("the other side says %s", r.code)
	}
	last := s.last
	code, err := s.check(&r, stripped, now)
	if err != nil || code != OK || r.code != OK {
		s.last = last // The right answer may still come.
	}
	switch {
	case err != nil:
		return nil, err
	case code != OK:
		return nil, fmt.Errorf("the answer has a bad signature: %s", code)
	case r.code != OK:
		return nil, fmt.Errorf("the other side says %s", r.code)
	}
	s.follows = true
	return stripped, nil
}

// check verifies MAC, time and length, in this order (RFC 8945 section 5.2).
func (s *Session) check(r *record, stripped []byte, now time.Time) (Code, error) {
	size := s.key.algorithm.size()
	if len(r.mac) > size || len(r.mac) < max(10, size/2) {
		return 0, ErrFormat
	}
	// The MAC covers the id that the message was signed with; forwarders may have changed it.
	id := bytes.Clone(stripped[:2])
	binary.BigEndian.PutUint16(stripped, r.id)
	sum := s.sum(r, stripped)
	copy(stripped, id)
	if !hmac.Equal(sum[:len(r.mac)], r.mac) {
		return BadSignature, nil
	}
	s.last = bytes.Clone(r.mac)
	// In 48 bits there is no overflow.
	apart := max(int64(r.time)-now.Unix(), now.Unix()-int64(r.time))
	if apart > min(int64(r.fudge), int64(MaxFudge/time.Second)) {
		return BadTime, nil
	}
	if len(r.mac) < size {
		return BadTruncation, nil
	}
	return OK, nil
}

// strip returns a copy of the message without the record.
func (r *record) strip(msg []byte) []byte {
	stripped := bytes.Clone(msg[:r.start])
	binary.BigEndian.PutUint16(stripped[10:], binary.BigEndian.Uint16(stripped[10:])-1)
	return stripped
}

// sum returns the MAC of a message without its TSIG record (RFC 8945 section 4.3).
func (s *Session) sum(r *record, msg []byte) []byte {
	h := s.key.mac()
	if s.last != nil {
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s.last))))
		h.Write(s.last)
	}
	h.Write(msg)
	if !s.follows {
		h.Write([]byte(r.name))
		h.Write([]byte{0, classANY, 0, 0, 0, 0})
		h.Write([]byte(r.algorithm))
	}
	r.sumTimers(h)
	if !s.follows {
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(r.code)))
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(r.other))))
		h.Write(r.other)
	}
	return h.Sum(nil)
}

func (r *record) sumTimers(h hash.Hash) {
	h.Write(binary.BigEndian.AppendUint16(appendTime(nil, r.time), r.fudge))
}
