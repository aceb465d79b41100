package ca

import (
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/seal"
)

// purposeSecret binds a value to its name and revision: no older value can be put in the place of a newer one.
func purposeSecret(name string, revision uint64) string {
	return "secret " + name + " " + strconv.FormatUint(revision, 10)
}

// SealSecret encrypts a revision of a secret with the newest data key, whose version it returns.
func (a *CA) SealSecret(name string, revision uint64, value []byte) (ciphertext []byte, keyVersion uint64, err error) {
	ring, _, err := a.open(a.config.State())
	if err != nil {
		return nil, 0, err
	}
	if ciphertext, err = ring.Seal(purposeSecret(name, revision), value); err != nil {
		return nil, 0, err
	}
	return ciphertext, ring.Version(), nil
}

// OpenSecret decrypts the value of a secret.
func (a *CA) OpenSecret(s *provisionrv1.Secret) ([]byte, error) {
	if s == nil {
		return nil, errs.New(errs.NotFound, "cannot open a secret that does not exist")
	}
	ring, _, err := a.open(a.config.State())
	if err != nil {
		return nil, err
	}
	return ring.Open(purposeSecret(s.GetMetadata().GetName(), s.GetRevision()), s.GetCiphertext())
}

// resealBytes bounds the ciphertexts of one command, in bytes: a log entry holds 1 MiB.
const resealBytes = 512 << 10

// reseal encrypts all secrets anew and returns them in parts that fit into a command each.
func reseal(records Records, old, ring *seal.Ring) ([][]*provisionrv1.Secret, error) {
	var parts [][]*provisionrv1.Secret
	size := resealBytes
	for s := range records.Secrets() {
		purpose := purposeSecret(s.GetMetadata().GetName(), s.GetRevision())
		value, err := old.Open(purpose, s.GetCiphertext())
		if err != nil {
			return nil, err
		}
		again := &provisionrv1.Secret{
			Metadata: &provisionrv1.Metadata{Name: s.GetMetadata().GetName()}, Revision: s.GetRevision(), KeyVersion: ring.Version(),
		}
		if again.Ciphertext, err = ring.Seal(purpose, value); err != nil {
			return nil, err
		}
		if size+len(again.Ciphertext) > resealBytes {
			parts, size = append(parts, nil), 0
		}
		last := len(parts) - 1
		parts[last] = append(parts[last], again)
		size += len(again.Ciphertext)
	}
	return slices.Clip(parts), nil
}

// sealedKeys returns the commands that put a ring of two keys in, and hand over every secret and zone key to the newer of them.
func sealedKeys(row *raftlogv1.SealedKey, secrets [][]*provisionrv1.Secret, zoneKeys [][]*provisionrv1.ZoneKey) []*raftlogv1.Command {
	var commands []*raftlogv1.Command
	add := func() *raftlogv1.PutSealedKey {
		each := proto.CloneOf(row)
		each.Version += uint64(len(commands))
		c := putSealedKey(each)
		commands = append(commands, c)
		return c.GetPutSealedKey()
	}
	for _, part := range secrets {
		add().Secrets = part
	}
	for _, part := range zoneKeys {
		add().ZoneKeys = part
	}
	if len(commands) == 0 {
		add()
	}
	return commands
}
