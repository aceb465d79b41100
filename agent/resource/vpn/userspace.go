package vpn

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	socketDir = "/var/run/wireguard/"
	// socketTimeout bounds a conversation with the program, which is on this machine.
	socketTimeout = 10 * time.Second
)

// readUserspace asks the program that carries an interface, in WireGuard's cross-platform protocol
// (https://www.wireguard.com/xplatform/).
func readUserspace(link string) (*device, error) {
	d := &device{}
	var peer *devicePeer
	err := converse(link, "get=1\n", func(key, value string) (err error) {
		if key == "public_key" {
			d.peers = append(d.peers, devicePeer{})
			peer = &d.peers[len(d.peers)-1]
			return decodeKey(&peer.key, value)
		}
		if peer == nil {
			switch key {
			case "private_key":
				err = decodeKey(&d.private, value)
			case "listen_port":
				d.port, err = strconv.Atoi(value)
			}
			return err
		}
		var n int64
		switch key {
		case "endpoint":
			peer.endpoint, err = netip.ParseAddrPort(value)
			peer.endpoint = netip.AddrPortFrom(peer.endpoint.Addr().Unmap(), peer.endpoint.Port())
		case "allowed_ip":
			var p netip.Prefix
			p, err = netip.ParsePrefix(value)
			peer.allowed = append(peer.allowed, p)
		case "persistent_keepalive_interval":
			n, err = strconv.ParseInt(value, 10, 64)
			peer.keepalive = time.Duration(n) * time.Second
		case "last_handshake_time_sec":
			if n, err = strconv.ParseInt(value, 10, 64); n > 0 {
				peer.handshake = time.Unix(n, 0)
			}
		}
		return err
	})
	return d, err
}

// configureUserspace changes what the program has.
func configureUserspace(link string, change deviceChange) error {
	var b strings.Builder
	b.WriteString("set=1\n")
	if change.private != nil {
		fmt.Fprintf(&b, "private_key=%x\n", change.private[:])
	}
	if change.port != nil {
		fmt.Fprintf(&b, "listen_port=%d\n", *change.port)
	}
	for _, p := range change.peers {
		fmt.Fprintf(&b, "public_key=%x\n", p.key[:])
		if p.remove {
			b.WriteString("remove=true\n")
			continue
		}
		if p.update {
			b.WriteString("update_only=true\n")
		}
		if p.endpoint.IsValid() {
			fmt.Fprintf(&b, "endpoint=%s\n", p.endpoint)
		}
		if p.keepalive != nil {
			fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", *p.keepalive/time.Second)
		}
		if p.replace {
			b.WriteString("replace_allowed_ips=true\n")
		}
		for _, a := range p.allowed {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a)
		}
	}
	return converse(link, b.String(), func(string, string) error { return nil })
}

// converse sends a request and calls f with each line of the answer but for its errno, which becomes an error.
func converse(link, request string, f func(key, value string) error) (err error) {
	c, err := net.DialTimeout("unix", socketDir+link+".sock", socketTimeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetDeadline(time.Now().Add(socketTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, request+"\n"); err != nil {
		return err
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		switch {
		case !ok:
			continue
		case key != "errno":
			if err := f(key, value); err != nil {
				return fmt.Errorf("cannot read the answer %s: %w", key, err)
			}
			continue
		}
		code, err := strconv.Atoi(value)
		if err == nil && code != 0 {
			err = syscall.Errno(max(code, -code))
		}
		return err
	}
	return errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}

func decodeKey(to *[keySize]byte, text string) error {
	raw, err := hex.DecodeString(text)
	if err == nil && len(raw) != keySize {
		err = errors.New("not a key")
	}
	if err == nil {
		copy(to[:], raw)
	}
	return err
}
