package hosttest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

const inNamespace = "PROVISIONR_TEST_NAMESPACE"

// InNamespace runs the whole test anew in a network namespace of its own, where it is root, and reports whether this is that run.
// The other one has nothing left to do.
func InNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1", "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in its namespace: %v\n%s", err, out)
	}
	return false
}
