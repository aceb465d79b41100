package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"github.com/provisionr/provisionr/internal/errs"
)

const (
	keySize = 32
	// entrySize is a big-endian version and a key.
	entrySize = 8 + keySize
	// maxKeys bounds a ring: the newest key and those of rotations that were interrupted.
	maxKeys = 8
	// overhead of a ciphertext: version, nonce and tag.
	overhead = 8 + 12 + 16
)

type dataKey struct {
	version uint64
	key     [keySize]byte
}

// Ring is the cluster's data keys in plain, newest first. It is immutable.
type Ring struct {
	keys []dataKey
}

// String keeps key material out of logs.
func (*Ring) String() string { return "seal.Ring(redacted)" }

// GoString keeps key material out of logs.
func (r *Ring) GoString() string { return r.String() }

// NewRing makes a ring with one fresh key of version 1.
func NewRing() *Ring { return &Ring{keys: []dataKey{newKey(1)}} }

// newKey makes a key. crypto/rand.Read never fails.
func newKey(version uint64) dataKey {
	k := dataKey{version: version}
	rand.Read(k.key[:])
	return k
}

// Version is that of the newest key.
func (r *Ring) Version() uint64 { return r.keys[0].version }

// Oldest is the version of the oldest key: nothing that was sealed with one before it can be opened.
func (r *Ring) Oldest() uint64 { return r.keys[len(r.keys)-1].version }

// Rotated returns a ring with a fresh key before all others. A ring of eight keys is full: errs.Exhausted.
func (r *Ring) Rotated() (*Ring, error) {
	if len(r.keys) == maxKeys {
		return nil, errs.New(errs.Exhausted, "cannot rotate data key: %d rotations before it were never completed", maxKeys-1)
	}
	return &Ring{keys: append([]dataKey{newKey(r.Version() + 1)}, r.keys...)}, nil
}

// Newest returns a ring with the newest key only: older ciphertexts can no longer be opened with it.
func (r *Ring) Newest() *Ring { return &Ring{keys: r.keys[:1:1]} }

// Settled reports whether the ring holds a single key, that is, no rotation is under way.
func (r *Ring) Settled() bool { return len(r.keys) == 1 }

// Seal encrypts with the newest key. The purpose must be given to Open again.
func (r *Ring) Seal(purpose string, plain []byte) ([]byte, error) {
	aead, err := r.keys[0].aead()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 8+aead.NonceSize(), len(plain)+overhead)
	binary.BigEndian.PutUint64(out, r.Version())
	rand.Read(out[8:])
	return aead.Seal(out, out[8:], plain, []byte(purpose)), nil
}

// Open decrypts what Seal made for the same purpose. The error is of kind errs.Internal: the state and the key do not fit.
func (r *Ring) Open(purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) < overhead {
		return nil, errs.New(errs.Internal, "cannot open sealed %s: too short", purpose)
	}
	version := binary.BigEndian.Uint64(sealed)
	for _, k := range r.keys {
		if k.version != version {
			continue
		}
		aead, err := k.aead()
		if err != nil {
			return nil, err
		}
		n := aead.NonceSize()
		plain, err := aead.Open(nil, sealed[8:8+n], sealed[8+n:], []byte(purpose))
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot open sealed %s: it was changed, or sealed by another cluster", purpose)
		}
		return plain, nil
	}
	return nil, errs.New(errs.Internal, "cannot open sealed %s: data key %d is not at hand", purpose, version)
}

func (k *dataKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.key[:])
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot use data key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot use data key: %w", err)
	}
	return aead, nil
}

func (r *Ring) encode() []byte {
	out := make([]byte, 0, len(r.keys)*entrySize)
	for _, k := range r.keys {
		out = binary.BigEndian.AppendUint64(out, k.version)
		out = append(out, k.key[:]...)
	}
	return out
}

func decodeRing(data []byte) (*Ring, error) {
	n := len(data) / entrySize
	if len(data)%entrySize != 0 || n < 1 || n > maxKeys {
		return nil, errs.New(errs.Internal, "cannot read data keys: %d bytes", len(data))
	}
	r := &Ring{keys: make([]dataKey, n)}
	for i := range r.keys {
		entry := data[i*entrySize:]
		r.keys[i].version = binary.BigEndian.Uint64(entry)
		copy(r.keys[i].key[:], entry[8:entrySize])
	}
	return r, nil
}
