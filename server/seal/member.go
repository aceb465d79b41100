package seal

import (
	"crypto/ecdh"
	"crypto/hpke"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
)

// MemberKey is one member's sealing key, X25519.
type MemberKey struct {
	private hpke.PrivateKey
}

// String keeps key material out of logs.
func (*MemberKey) String() string { return "seal.MemberKey(redacted)" }

// GoString keeps key material out of logs.
func (k *MemberKey) GoString() string { return k.String() }

func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// NewMemberKey makes a key that is on no disk.
func NewMemberKey() (*MemberKey, error) {
	private, err := kem().GenerateKey()
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot make sealing key: %w", err)
	}
	return &MemberKey{private: private}, nil
}

// OpenMemberKey reads the key from a file of 32 bytes with mode 0600, which is made where missing.
func OpenMemberKey(path string) (*MemberKey, error) {
	data, err := pki.LoadOrCreate(path, func() ([]byte, error) {
		k, err := NewMemberKey()
		if err != nil {
			return nil, err
		}
		return k.private.Bytes()
	})
	if err != nil {
		return nil, err
	}
	private, err := kem().NewPrivateKey(data)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot read sealing key %s: not an X25519 key", path).
			WithHint("restore the file from a backup, or remove this member from the cluster and join it anew")
	}
	return &MemberKey{private: private}, nil
}

// Public is what goes into the member's record.
func (k *MemberKey) Public() []byte { return k.private.PublicKey().Bytes() }

// Wrap encrypts the ring for the member with the public sealing key, for use in the cluster only.
func (r *Ring) Wrap(public []byte, cluster string) ([]byte, error) {
	pub, err := kem().NewPublicKey(public)
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot wrap data key: the sealing key is not an X25519 key")
	}
	wrapped, err := hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), info(cluster), r.encode())
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot wrap data key: %w", err)
	}
	return wrapped, nil
}

// Unwrap decrypts what Wrap made for this key and cluster.
func (k *MemberKey) Unwrap(wrapped []byte, cluster string) (*Ring, error) {
	plain, err := hpke.Open(k.private, hpke.HKDFSHA256(), hpke.AES256GCM(), info(cluster), wrapped)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot unwrap data key: it was wrapped for another key").
			WithHint("the member's sealing key was replaced: remove the member and join it anew")
	}
	return decodeRing(plain)
}

// info binds a wrapped ring to its use and cluster (RFC 9180, section 8.1).
func info(cluster string) []byte { return []byte("provisionr data key v1 " + cluster) }
