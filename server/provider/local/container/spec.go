package container

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// Command is the first argument with which the server's binary must call [Init].
const Command = "local-init"

// Spec says what to start. It crosses to the helpers as JSON over a pipe, never over the command line: UserData holds a token.
type Spec struct {
	MachineID string
	Hostname  string
	// Lower is the shared root file system; Dir has the machine's upper and work directories, and its record.
	Lower string
	Dir   string
	// IDBase is the host's user and group id of root inside.
	IDBase int
	// Payload is the cgroup2 directory of the machine's processes; it becomes the root of the machine's cgroup namespace.
	Payload string
	Link    Link
	// Seed are the files of cloud-init's NoCloud data source, by name.
	Seed map[string][]byte
}

// Link is the machine's network interface: a veth pair of which one end is a port of the bridge.
type Link struct {
	Bridge string
	// Host is the name of the host's end, Inside that of the machine's, with the hardware address MAC.
	Host, Inside, MAC string
	// Alias marks the host's end as the cluster's (ip-link(8) "alias").
	Alias string
}

// Where the outer helper puts things in its own mount namespace, over the host's /run: every directory on the way may be
// searched by the machine's ids, which the directories of the server need not allow.
const (
	stageDir   = "/run"
	stageRoot  = stageDir + "/root"
	stageLower = stageDir + "/lower"
	stageExe   = stageDir + "/init"
)

// Upper and Work are the directories of the overlay within a machine's directory.
func Upper(dir string) string { return filepath.Join(dir, "upper") }

// Work is the overlay's work directory.
func Work(dir string) string { return filepath.Join(dir, "work") }

// MachineIDFile is the content of /etc/machine-id (machine-id(5): 32 hexadecimal digits), the same at every start.
func MachineIDFile(machineID string) []byte {
	sum := sha256.Sum256([]byte("machine-id:" + machineID))
	return append([]byte(hex.EncodeToString(sum[:16])), '\n')
}

// Prepare makes the overlay's directories. The machine's root must own the upper one: it is the root directory inside.
func Prepare(spec Spec) error {
	for _, dir := range []string{Upper(spec.Dir), Work(spec.Dir)} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Chown(Upper(spec.Dir), spec.IDBase, spec.IDBase)
}
