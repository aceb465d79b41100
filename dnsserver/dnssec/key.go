package dnssec

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Constants of the keys, as records and their presentation have them.
const (
	// Algorithm is ECDSA P-256 with SHA-256 (RFC 6605 section 2).
	Algorithm = 13
	// Flags say zone key and secure entry point (RFC 4034 section 2.1.1): one key signs keys and records alike.
	Flags = 257
	// PublicSize is the size of a public key, in octets: the point's coordinates (RFC 6605 section 4).
	PublicSize = 64
	// digestSHA256 is the digest type of DS records (RFC 4509 section 2.1).
	digestSHA256 = 2
	protocol     = 3
)

// Form of a marshalled private key: the octet of the format, the algorithm, and the scalar.
const (
	keyFormat  = 1
	scalarSize = 32
	keySize    = 2 + scalarSize
)

// Key is a key of one zone. It is immutable.
type Key struct {
	origin  string
	owner   []byte
	public  [PublicSize]byte
	private *ecdsa.PrivateKey
	tag     uint16
}

// Generate makes a key for a zone whose tag is none of those taken: tags tell the keys of a zone apart.
func Generate(origin string, taken ...uint16) (*Key, error) {
	for {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("cannot generate a key for zone %s: %w", origin, err)
		}
		k, err := newKey(origin, private)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(taken, k.tag) {
			return k, nil
		}
	}
}

// Parse reads a key that Marshal wrote. The errors say nothing about the key's octets.
func Parse(origin string, marshalled []byte) (*Key, error) {
	switch {
	case len(marshalled) != keySize:
		return nil, fmt.Errorf("cannot read the key of zone %s: %d octets, not %d", origin, len(marshalled), keySize)
	case marshalled[0] != keyFormat:
		return nil, fmt.Errorf("cannot read the key of zone %s: unknown format %d", origin, marshalled[0])
	case marshalled[1] != Algorithm:
		return nil, fmt.Errorf("cannot read the key of zone %s: unknown algorithm %d", origin, marshalled[1])
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), marshalled[2:])
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of zone %s: not a P-256 private key", origin)
	}
	return newKey(origin, private)
}

// Public makes a key that has only its public part, in the form of [Key.Public]. It can be shown but does not sign.
func Public(origin string, public []byte) (*Key, error) {
	if len(public) != PublicSize {
		return nil, fmt.Errorf("cannot read the public key of zone %s: %d octets, not %d", origin, len(public), PublicSize)
	}
	// The leading octet marks an uncompressed point (SEC 1 section 2.3.3); the parser checks that it is on the curve.
	if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, public...)); err != nil {
		return nil, fmt.Errorf("cannot read the public key of zone %s: not a point of P-256", origin)
	}
	return assemble(origin, public, nil)
}

func newKey(origin string, private *ecdsa.PrivateKey) (*Key, error) {
	point, err := private.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of zone %s: %w", origin, err)
	}
	return assemble(origin, point[1:], private)
}

func assemble(origin string, public []byte, private *ecdsa.PrivateKey) (*Key, error) {
	owner, err := zone.AppendName(nil, origin)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key for zone %q: %w", origin, err)
	}
	k := &Key{origin: zone.TextName(owner), owner: owner, private: private}
	copy(k.public[:], public)
	k.tag = tagOf(k.data())
	return k, nil
}

// Marshal returns the private key in the form that Parse reads, or an error where there is only the public part. Whoever
// has these octets can sign for the zone.
func (k *Key) Marshal() ([]byte, error) {
	if k.private == nil {
		return nil, errors.New("cannot marshal a key without its private part")
	}
	scalar, err := k.private.Bytes()
	if err != nil {
		return nil, errors.New("cannot marshal a key: not a P-256 private key")
	}
	return append([]byte{keyFormat, Algorithm}, scalar...), nil
}

// Origin returns the zone's name in lower case, with final dot.
func (k *Key) Origin() string { return k.origin }

// Tag returns the key tag (RFC 4034 appendix B).
func (k *Key) Tag() uint16 { return k.tag }

// Public returns the public key as DNSKEY records have it: 64 octets (RFC 6605 section 4).
func (k *Key) Public() []byte { return slices.Clone(k.public[:]) }

// String returns zone and tag, never the key.
func (k *Key) String() string { return fmt.Sprintf("%s/%d", k.origin, k.tag) }

// GoString keeps the private part out of %#v.
func (k *Key) GoString() string { return k.String() }

// data returns the DNSKEY's data.
func (k *Key) data() []byte {
	return append([]byte{Flags >> 8, Flags & 0xff, protocol, Algorithm}, k.public[:]...)
}

// DNSKEY returns the key's record, with the zone's TTL.
func (k *Key) DNSKEY() zone.Record {
	return zone.Record{Name: k.origin, Type: zone.TypeDNSKEY, Data: k.data()}
}

// DS returns the record that the parent zone needs (RFC 4034 section 5), with the parent's TTL.
func (k *Key) DS() zone.Record {
	digest := sha256.Sum256(append(slices.Clone(k.owner), k.data()...))
	data := binary.BigEndian.AppendUint16(nil, k.tag)
	data = append(data, Algorithm, digestSHA256)
	return zone.Record{Name: k.origin, Type: zone.TypeDS, Data: append(data, digest[:]...)}
}

// DNSKEYText returns the key's record in presentation form.
func (k *Key) DNSKEYText() string {
	return fmt.Sprintf("%s IN DNSKEY %d %d %d %s", k.origin, Flags, protocol, Algorithm,
		base64.StdEncoding.EncodeToString(k.public[:]))
}

// DSText returns the parent's record in presentation form.
func (k *Key) DSText() string {
	digest := k.DS().Data[4:]
	return fmt.Sprintf("%s IN DS %d %d %d %s", k.origin, k.tag, Algorithm, digestSHA256,
		strings.ToUpper(hex.EncodeToString(digest)))
}

// tagOf returns the key tag of a DNSKEY's data (RFC 4034 appendix B).
func tagOf(data []byte) uint16 {
	var sum uint32
	for i, octet := range data {
		if i%2 == 0 {
			sum += uint32(octet) << 8
		} else {
			sum += uint32(octet)
		}
	}
	return uint16(sum + sum>>16)
}
