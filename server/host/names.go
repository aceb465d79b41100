package host

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"net"
	"regexp"
	"strings"
)

// idPattern keeps ids harmless as names of files, cgroups and nft tables.
var idPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ValidID reports whether an id or a name is one: lower-case letters, digits and hyphens, at most 63.
func ValidID(id string) bool { return idPattern.MatchString(id) }

// Scope is the mark of a provider's things on the host. The provider's name is empty for the one that was there first,
// and no id has an underscore.
func Scope(cluster, provider string) string {
	if provider == "" {
		return "provisionr-" + cluster
	}
	return "provisionr-" + cluster + "_" + provider
}

// Digest is 12 lower-case characters: 60 bits of the parts' hash. With three letters before them they name an interface.
func Digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:12]
}

// HardwareAddress is the machine's for ever, locally administered and unicast.
func HardwareAddress(machine string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("mac:" + machine))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// IDRange is how many user and group ids a machine has (systemd.exec(5) and user_namespaces(7) expect 65536).
const IDRange = 65536

// The ranges of ids that machines get begin at firstID, above what distributions and systemd-nspawn (at most 0x6fff0000)
// hand out, and end below 2^32-2, above which the kernel has none.
const (
	firstID = 0x70000000
	ranges  = 0x7000
)

// IDBase is the first of the host's ids that are the machine's. Two machines may meet in one range; they still cannot
// reach each other, for all else is separate. It costs them a common limit of keys and the like.
func IDBase(machine string) int {
	sum := sha256.Sum256([]byte("ids:" + machine))
	return firstID + int(binary.BigEndian.Uint32(sum[:])%ranges)*IDRange
}
