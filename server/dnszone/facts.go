package dnszone

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// SameFacts reports whether what a machine's name says of it is the same before and after. Appliers of the log decide by it
// whether names have changed, so what it answers never changes within a feature level.
func SameFacts(before, after *provisionrv1.Machine) bool {
	b, a := before.GetStatus(), after.GetStatus()
	f, g := b.GetFacts(), a.GetFacts()
	return b.GetAgent().GetVersion() == a.GetAgent().GetVersion() && f.GetOsRelease() == g.GetOsRelease() && f.GetKernel() == g.GetKernel() &&
		(slices.Equal(f.GetSshHostKeys(), g.GetSshHostKeys()) || slices.Equal(hostKeys(f), hostKeys(g)))
}

// hostKey is the digest of a host key with IANA's number of its kind, as an SSHFP record has them.
type hostKey struct {
	algorithm uint8
	digest    [sha256.Size]byte
}

// hostKeys returns the digests of a machine's host keys in order, each once. Keys of no known kind are left out.
func hostKeys(f *provisionrv1.Facts) []hostKey {
	keys := make([]hostKey, 0, len(f.GetSshHostKeys()))
	for _, text := range f.GetSshHostKeys() {
		kind, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
		encoded, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		algorithm := sshAlgorithm(kind)
		if key, err := base64.StdEncoding.DecodeString(encoded); err == nil && len(key) > 0 && algorithm != 0 {
			keys = append(keys, hostKey{algorithm, sha256.Sum256(key)})
		}
	}
	slices.SortFunc(keys, func(a, b hostKey) int {
		return cmp.Or(cmp.Compare(a.algorithm, b.algorithm), bytes.Compare(a.digest[:], b.digest[:]))
	})
	return slices.Compact(keys)
}

// sshAlgorithm is the number of a kind of key in SSHFP records (RFC 4255, RFC 6594, RFC 7479), 0 for others.
func sshAlgorithm(kind string) uint8 {
	switch kind {
	case "ssh-rsa":
		return 1
	case "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521":
		return 3
	case "ssh-ed25519":
		return 4
	}
	return 0
}

// appendFacts appends what the name of a machine says of it: its host keys, and its pool, roles and software as one text
// with a string for each (RFC 1464).
func appendFacts(records []zone.Record, name string, pool *provisionrv1.Pool, m *provisionrv1.Machine) []zone.Record {
	facts := m.GetStatus().GetFacts()
	for _, key := range hostKeys(facts) {
		records = append(records, zone.SSHFingerprint(name, key.algorithm, key.digest))
	}
	texts := []string{"pool=" + m.GetSpec().GetPool()}
	for _, fact := range [...][2]string{
		{"roles", strings.Join(pool.GetSpec().GetRoles(), ",")}, {"os", facts.GetOsRelease()}, {"kernel", facts.GetKernel()},
		{"agent", m.GetStatus().GetAgent().GetVersion()},
	} {
		if text := fact[0] + "=" + fact[1]; fact[1] != "" {
			texts = append(texts, text[:min(len(text), 255)])
		}
	}
	return append(records, zone.Text(name, texts...))
}
