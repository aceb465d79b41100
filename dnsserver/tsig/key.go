package tsig

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"strings"
)

// Algorithm is the keyed hash of a key.
type Algorithm uint8

// The algorithms that are supported; the zero value is none.
const (
	SHA256 Algorithm = iota + 1
	SHA384
	SHA512
)

// ParseAlgorithm reads the name of an algorithm, as hmac-sha256; a final dot is optional. Empty means hmac-sha256.
func ParseAlgorithm(name string) (Algorithm, error) {
	switch strings.ToLower(strings.TrimSuffix(name, ".")) {
	case "", "hmac-sha256":
		return SHA256, nil
	case "hmac-sha384":
		return SHA384, nil
	case "hmac-sha512":
		return SHA512, nil
	}
	return 0, fmt.Errorf("tsig algorithm %q is none of hmac-sha256, hmac-sha384, hmac-sha512", name)
}

// String returns the algorithm's name without final dot.
func (a Algorithm) String() string {
	switch a {
	case SHA256:
		return "hmac-sha256"
	case SHA384:
		return "hmac-sha384"
	case SHA512:
		return "hmac-sha512"
	}
	return "none"
}

// wire returns the name's wire form (RFC 8945 section 6).
func (a Algorithm) wire() string { return "\x0b" + a.String() + "\x00" }

// size returns the length of the whole MAC in octets.
func (a Algorithm) size() int {
	switch a {
	case SHA384:
		return sha512.Size384
	case SHA512:
		return sha512.Size
	}
	return sha256.Size
}

// MinSecret is the shortest secret that a key may have, in octets.
const MinSecret = 16

// Key is a named secret that two servers share. It is immutable, and it prints as its name and algorithm only. The zero value
// is no key.
type Key struct {
	name      string // in wire form and lower case
	algorithm Algorithm
	secret    string
}

// NewKey makes a key; a final dot of its name is optional. It refuses names that are no domain names and secrets shorter than
// [MinSecret].
func NewKey(name string, algorithm Algorithm, secret []byte) (Key, error) {
	if algorithm < SHA256 || algorithm > SHA512 {
		return Key{}, fmt.Errorf("tsig key %q: no algorithm", name)
	}
	if len(secret) < MinSecret {
		return Key{}, fmt.Errorf("tsig key %q: its secret has %d octets, fewer than %d", name, len(secret), MinSecret)
	}
	var wire []byte
	for label := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(name, ".")), ".") {
		if len(label) == 0 || len(label) > 63 {
			return Key{}, fmt.Errorf("tsig key %q: a label has %d octets, not 1 to 63", name, len(label))
		}
		wire = append(append(wire, byte(len(label))), label...)
	}
	if len(wire)+1 > maxName {
		return Key{}, fmt.Errorf("tsig key %q: longer than %d octets", name, maxName)
	}
	return Key{name: string(append(wire, 0)), algorithm: algorithm, secret: string(secret)}, nil
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.name == "" }

// Name returns the key's name in lower case, without final dot.
func (k Key) Name() string {
	var labels []string
	for i := 0; i < len(k.name) && k.name[i] != 0; i += 1 + int(k.name[i]) {
		labels = append(labels, k.name[i+1:i+1+int(k.name[i])])
	}
	return strings.Join(labels, ".")
}

// Algorithm returns the key's algorithm.
func (k Key) Algorithm() Algorithm { return k.algorithm }

// Format implements [fmt.Formatter], so that no verb prints the secret.
func (k Key) Format(f fmt.State, _ rune) {
	// A formatter has nobody to tell of an error.
	_, _ = fmt.Fprintf(f, "%s:%s", k.algorithm, k.Name())
}

func (k Key) mac() hash.Hash {
	secret := []byte(k.secret)
	switch k.algorithm {
	case SHA384:
		return hmac.New(sha512.New384, secret)
	case SHA512:
		return hmac.New(sha512.New, secret)
	}
	return hmac.New(sha256.New, secret)
}
