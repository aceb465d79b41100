package ca

import (
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/seal"
)

// purposeZoneKey binds a private key to its zone and tag.
func purposeZoneKey(name string) string { return "zone key " + name }

// SealZoneKey encrypts the private part of a DNSSEC key, whose name is ORIGIN/TAG, with the newest data key, whose version it
// returns.
func (a *CA) SealZoneKey(name string, private []byte) (ciphertext []byte, keyVersion uint64, err error) {
	ring, _, err := a.open(a.config.State())
	if err != nil {
		return nil, 0, err
	}
	if ciphertext, err = ring.Seal(purposeZoneKey(name), private); err != nil {
		return nil, 0, err
	}
	return ciphertext, ring.Version(), nil
}

// OpenZoneKey decrypts the private part of a DNSSEC key.
func (a *CA) OpenZoneKey(k *provisionrv1.ZoneKey) ([]byte, error) {
	if k == nil {
		return nil, errs.New(errs.NotFound, "cannot open a zone key that does not exist")
	}
	ring, _, err := a.open(a.config.State())
	if err != nil {
		return nil, err
	}
	return ring.Open(purposeZoneKey(k.GetMetadata().GetName()), k.GetCiphertext())
}

// zoneKeysPerCommand bounds the zone keys of one command: a log entry holds 1 MiB, a key less than 700 bytes.
const zoneKeysPerCommand = 1000

// resealZoneKeys encrypts all zone keys anew and returns them in parts that fit into a command each.
func resealZoneKeys(records Records, old, ring *seal.Ring) ([][]*provisionrv1.ZoneKey, error) {
	var parts [][]*provisionrv1.ZoneKey
	for k := range records.ZoneKeys() {
		name := k.GetMetadata().GetName()
		private, err := old.Open(purposeZoneKey(name), k.GetCiphertext())
		if err != nil {
			return nil, err
		}
		again := proto.CloneOf(k)
		again.KeyVersion = ring.Version()
		if again.Ciphertext, err = ring.Seal(purposeZoneKey(name), private); err != nil {
			return nil, err
		}
		if last := len(parts) - 1; last < 0 || len(parts[last]) == zoneKeysPerCommand {
			parts = append(parts, nil)
		}
		last := len(parts) - 1
		parts[last] = append(parts[last], again)
	}
	return parts, nil
}
