package vpn

import (
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/resource/internal/rtnl"
)

const (
	// keepaliveEvery keeps the usual NAT mappings for UDP open.
	keepaliveEvery = 25 * time.Second
	// stale is how long after a handshake a peer counts as lost: WireGuard's REJECT_AFTER_TIME. Before that, an endpoint that
	// differs is where the peer really is.
	stale = 3 * time.Minute
	// shownKey is how much of a public key tells peers apart for people.
	shownKey = 8
)

// device is the WireGuard side of an interface.
type device struct {
	private [keySize]byte
	port    int
	peers   []devicePeer
}

type devicePeer struct {
	key [keySize]byte
	// endpoint is the zero value where none is known.
	endpoint  netip.AddrPort
	allowed   []netip.Prefix
	keepalive time.Duration
	// handshake is when the last one was; the zero value if there was none.
	handshake time.Time
}

// deviceChange is what to configure; nil and zero values change nothing.
type deviceChange struct {
	private *[keySize]byte
	port    *int
	peers   []peerChange
}

// peerChange adds, changes or removes a peer.
type peerChange struct {
	key [keySize]byte
	// update leaves alone a peer that is gone meanwhile.
	remove, update bool
	endpoint       netip.AddrPort
	keepalive      *time.Duration
	// replace takes all ranges away before allowed are added.
	replace bool
	allowed []netip.Prefix
}

// readDevice returns the WireGuard side of an interface, from whoever carries it.
func readDevice(link rtnl.Link) (*device, error) {
	read := readKernel
	if link.Kind == userspaceKind {
		read = readUserspace
	}
	d, err := read(link.Name)
	if err != nil {
		return nil, fmt.Errorf("cannot ask WireGuard for %s: %w", link.Name, err)
	}
	for i := range d.peers {
		slices.SortFunc(d.peers[i].allowed, comparePrefix)
	}
	return d, nil
}

func configureDevice(link rtnl.Link, change deviceChange) error {
	configure := configureKernel
	if link.Kind == userspaceKind {
		configure = configureUserspace
	}
	if err := configure(link.Name, change); err != nil {
		return fmt.Errorf("cannot configure WireGuard on %s: %w", link.Name, err)
	}
	return nil
}

// compare returns what makes a device as desired, and the same for people. Lines is empty where nothing differs.
func (c *config) compare(d *device, key *ecdh.PrivateKey, now time.Time) (change deviceChange, lines []string) {
	if private := [keySize]byte(key.Bytes()); d.private != private {
		change.private = &private
		lines = append(lines, "private key: another one than the machine's")
	}
	if d.port != c.port {
		change.port = &c.port
		lines = append(lines, fmt.Sprintf("-port %d", d.port), fmt.Sprintf("+port %d", c.port))
	}
	present := make(map[[keySize]byte]*devicePeer)
	for i := range d.peers {
		present[d.peers[i].key] = &d.peers[i]
	}
	for i := range c.peers {
		p := &c.peers[i]
		pc, differs := p.compare(present[p.key], c.keepalive, now)
		if len(differs) > 0 {
			change.peers = append(change.peers, pc)
			lines = append(lines, differs...)
		}
		delete(present, p.key)
	}
	for i := range d.peers {
		if k := d.peers[i].key; present[k] != nil {
			change.peers = append(change.peers, peerChange{key: k, remove: true})
			lines = append(lines, "-peer "+shown(k))
		}
	}
	return change, lines
}

// compare is config.compare of one peer; have is nil where it is missing.
func (p *peer) compare(have *devicePeer, keepalive bool, now time.Time) (peerChange, []string) {
	interval := time.Duration(0)
	if keepalive && p.endpoint.IsValid() {
		interval = keepaliveEvery
	}
	name := p.name + " " + shown(p.key)
	if have == nil {
		pc := peerChange{key: p.key, endpoint: p.endpoint, keepalive: &interval, replace: true, allowed: p.allowed}
		return pc, []string{fmt.Sprintf("+peer %s endpoint %s allowed %s", name, text(p.endpoint), ranges(p.allowed))}
	}
	pc := peerChange{key: p.key, update: true}
	var lines []string
	if !slices.Equal(have.allowed, p.allowed) {
		pc.replace, pc.allowed = true, p.allowed
		lines = append(lines, fmt.Sprintf("-peer %s allowed %s", name, ranges(have.allowed)), fmt.Sprintf("+peer %s allowed %s", name, ranges(p.allowed)))
	}
	if have.keepalive != interval {
		pc.keepalive = &interval
		lines = append(lines, fmt.Sprintf("-peer %s keepalive %s", name, have.keepalive), fmt.Sprintf("+peer %s keepalive %s", name, interval))
	}
	if p.endpoint.IsValid() && have.endpoint != p.endpoint && now.Sub(have.handshake) > stale {
		pc.endpoint = p.endpoint
		lines = append(lines, fmt.Sprintf("-peer %s endpoint %s", name, text(have.endpoint)), fmt.Sprintf("+peer %s endpoint %s", name, text(p.endpoint)))
	}
	return pc, lines
}

// shown is as much of a public key as tells peers apart for people.
func shown(key [keySize]byte) string { return base64.StdEncoding.EncodeToString(key[:])[:shownKey] }

func text(e netip.AddrPort) string {
	if !e.IsValid() {
		return "none"
	}
	return e.String()
}

func ranges(list []netip.Prefix) string {
	var b strings.Builder
	for i, p := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
	}
	return b.String()
}
