// Command minimal is the yardstick of bench-converge: the least that a program can do which checks the state that all systems
// are compared on, by hand for it alone, in Go, and knows no more. It runs nothing: nftables is asked by netlink.
//
//	minimal STATE FINGERPRINT
//
// Where the file FINGERPRINT is missing, it is made of the firewall as it is.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	wrong, err := check(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "minimal:", err)
		os.Exit(1)
	}
	for _, w := range wrong {
		fmt.Println(w)
	}
	if len(wrong) > 0 {
		os.Exit(2)
	}
}

func check(state, record string) ([]string, error) {
	list, err := os.ReadFile(state)
	if err != nil {
		return nil, err
	}
	status, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	installed := packages(status)
	var wrong []string
	for line := range strings.Lines(string(list)) {
		right, f := true, strings.Fields(line)
		switch f[0] {
		case "package":
			right = installed[f[1]]
		case "file":
			right = same(f[1], f[2], f[3])
		case "user":
			right = bytes.Contains(passwd, []byte("\n"+f[1]+":"))
		case "table":
			if right, err = firewall(f[1], record); err != nil {
				return nil, err
			}
		case "service":
			right = running(f[1], f[2])
		case "sysctl":
			value, err := os.ReadFile(f[1])
			right = err == nil && strings.TrimSpace(string(value)) == f[2]
		}
		if !right {
			wrong = append(wrong, strings.TrimSpace(line))
		}
	}
	return wrong, nil
}

func packages(status []byte) map[string]bool {
	installed := make(map[string]bool, 512)
	var name []byte
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("Package: ")); ok {
			name = rest
		} else if bytes.HasPrefix(line, []byte("Status: ")) && bytes.HasSuffix(line, []byte(" ok installed\n")) {
			installed[string(bytes.TrimSpace(name))] = true
		}
	}
	return installed
}

func same(path, mode, source string) bool {
	want, err := os.ReadFile(source)
	is, err2 := os.ReadFile(path)
	info, err3 := os.Stat(path)
	bits, err4 := strconv.ParseUint(mode, 8, 32)
	return err == nil && err2 == nil && err3 == nil && err4 == nil && bytes.Equal(want, is) && uint64(info.Mode().Perm()) == bits
}

func running(pidFile, program string) bool {
	pid, err := os.ReadFile(pidFile)
	name, err2 := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/comm")
	return err == nil && err2 == nil && strings.TrimSpace(string(name)) == program
}

// Messages of linux/netfilter/nf_tables.h.
const (
	getRule   = 10<<8 | 7
	attrTable = 1
)

// firewall hashes the rules of a table of family inet as the kernel lists them, but for what counts packets.
func firewall(table, record string) (bool, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_NETFILTER)
	if err != nil {
		return false, err
	}
	defer syscall.Close(fd)
	name := append([]byte(table), 0)
	attr := binary.NativeEndian.AppendUint16(nil, uint16(4+len(name)))
	attr = append(binary.NativeEndian.AppendUint16(attr, attrTable), name...)
	attr = append(attr, make([]byte, -len(attr)&3)...)
	request := binary.NativeEndian.AppendUint32(nil, uint32(16+4+len(attr)))
	request = binary.NativeEndian.AppendUint16(request, getRule)
	request = binary.NativeEndian.AppendUint16(request, syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	request = append(request, 1, 0, 0, 0, 0, 0, 0, 0) // sequence and port
	request = append(request, 1, 0, 0, 0)             // nfgenmsg: NFPROTO_INET
	if err := syscall.Sendto(fd, append(request, attr...), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return false, err
	}
	hash, buffer, rules := sha256.New(), make([]byte, 64<<10), 0
	for done := false; !done; {
		n, _, err := syscall.Recvfrom(fd, buffer, 0)
		if err != nil {
			return false, err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return false, err
		}
		for _, m := range messages {
			if done = m.Header.Type == syscall.NLMSG_DONE || m.Header.Type == syscall.NLMSG_ERROR; done {
				break
			}
			rules++
			hash.Write(withoutCounters(m.Data))
		}
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	want, err := os.ReadFile(record)
	if os.IsNotExist(err) {
		return rules > 0, os.WriteFile(record, []byte(sum), 0o600)
	}
	return string(want) == sum, err
}

// withoutCounters zeroes the two numbers of each counter (NFTA_COUNTER_BYTES and _PACKETS), which follow its name with the
// heads of three attributes.
func withoutCounters(rule []byte) []byte {
	for rest := rule; ; {
		at := bytes.Index(rest, []byte("counter\x00"))
		if at < 0 || at+8+28 > len(rest) {
			return rule
		}
		rest = rest[at+8:]
		clear(rest[8:16])
		clear(rest[20:28])
	}
}
