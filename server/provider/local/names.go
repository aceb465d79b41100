package local

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/provisionr/provisionr/server/provider/local/container"
)

// idPattern keeps ids harmless as names of files, cgroups and nft tables.
var idPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// tableName is the cluster's nft table; the cgroup2 directory and the alias of its links have the same name.
func tableName(cluster string) string { return "provisionr-" + cluster }

// bridgeName and vethName fit into the 15 characters of an interface's name.
func bridgeName(cluster, network string) string { return "pvr" + digest("bridge", cluster, network) }

func vethName(cluster, machine string) string { return "pvm" + digest("veth", cluster, machine) }

// digest is 12 lower-case characters: 60 bits of the parts' hash.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:12]
}

// hardwareAddress is the machine's for ever, locally administered and unicast.
func hardwareAddress(machine string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("mac:" + machine))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// The ranges of ids that machines get begin at firstID, above what distributions and systemd-nspawn (at most 0x6fff0000)
// hand out, and end below 2^32-2, above which the kernel has none.
const (
	firstID = 0x70000000
	ranges  = 0x7000
)

// idBase is the host's id of the machine's root. Two machines may meet in one range; they still cannot reach each other,
// for all else is separate. It costs them a common limit of keys and the like.
func idBase(machine string) int {
	sum := sha256.Sum256([]byte("ids:" + machine))
	return firstID + int(binary.BigEndian.Uint32(sum[:])%ranges)*container.IDRange
}

// providerID is the provider's own name of a machine.
func providerID(machine string) string { return fmt.Sprintf("local/%s", machine) }
