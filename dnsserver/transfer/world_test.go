package transfer_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	origin  = "example.test."
	keyName = "copy.example.test."
	secret  = "0123456789abcdef0123456789abcdef"
)

var encoded = base64.StdEncoding.EncodeToString([]byte(secret))

// fataler is what tests, fuzz tests and property tests share.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newKey(t fataler, name string) tsig.Key {
	t.Helper()
	key, err := tsig.NewKey(name, tsig.SHA256, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newZone(t fataler, cfg zone.Config) *zone.Zone {
	t.Helper()
	if cfg.Origin == "" {
		cfg.Origin = origin
	}
	if cfg.Serial == 0 {
		cfg.Serial = 1
	}
	cfg.TTL = 30
	cfg.NS = []zone.NameServer{{Name: "ns." + cfg.Origin, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}}
	z, err := zone.Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// world is a server with its zones, whose queries come through pipes.
type world struct {
	*transfer.Server

	mu     sync.Mutex
	zones  []*zone.Zone
	policy map[string]transfer.Policy
}

func newWorld(t fataler, cfg transfer.Config, zones ...*zone.Zone) *world {
	t.Helper()
	w := &world{zones: zones, policy: map[string]transfer.Policy{origin: {Keys: []tsig.Key{newKey(t, keyName)}}}}
	cfg.Set = func() *zone.Set {
		w.mu.Lock()
		defer w.mu.Unlock()
		set, err := zone.NewSet(slices.Clone(w.zones))
		if err != nil {
			panic(err)
		}
		return set
	}
	cfg.Policy = func(origin string) transfer.Policy {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.policy[origin]
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	server, err := transfer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Server = server
	return w
}

func (w *world) set(zones ...*zone.Zone) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zones = zones
}

// serve answers the queries of a connection as a server does over TCP.
func (w *world) serve(ctx context.Context, conn net.Conn) error {
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return nil
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return err
		}
		err := w.Special(ctx, netip.AddrPort{}, query, true, nil, func(msg []byte) error {
			_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
			return err
		})
		if err != nil {
			return err
		}
	}
}

// ask has a query answered and returns the messages of the answer.
func (w *world) ask(t fataler, query []byte, tcp bool) [][]byte {
	t.Helper()
	var answers [][]byte
	err := w.Special(context.Background(), netip.AddrPort{}, query, tcp, nil, func(msg []byte) error {
		answers = append(answers, slices.Clone(msg))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// fetch sends a signed query through the library's client, and returns the records of the whole answer.
func (w *world) fetch(t fataler, query *dns.Msg) []dns.RR {
	t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- w.serve(context.Background(), ours) }()
	query.SetTsig(keyName, dns.HmacSHA256, 300, 0)
	client := dns.Transfer{Conn: &dns.Conn{Conn: theirs}, TsigSecret: map[string]string{keyName: encoded}}
	envelopes, err := client.In(query, "")
	if err != nil {
		t.Fatal(err)
	}
	var records []dns.RR
	for e := range envelopes {
		err = errors.Join(err, e.Error)
		records = append(records, e.RR...)
	}
	_ = theirs.Close()
	if err := errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	return records
}

func axfr() *dns.Msg {
	m := new(dns.Msg)
	m.SetAxfr(origin)
	return m
}

func ixfr(serial uint32) *dns.Msg {
	m := new(dns.Msg)
	m.SetIxfr(origin, serial, "ns."+origin, "hostmaster."+origin)
	return m
}

// content is all records of a zone in presentation form, sorted.
func content(t fataler, z *zone.Zone) []string {
	t.Helper()
	var records []string
	for r := range z.All() {
		records = append(records, parse(t, r).String())
	}
	slices.Sort(records)
	return records
}

func parse(t fataler, r zone.Record) dns.RR {
	t.Helper()
	text := fmt.Sprintf("%s %d CLASS1 TYPE%d \\# %d %x", strings.TrimSuffix(r.Name, ".")+".", r.TTL, r.Type, len(r.Data), r.Data)
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	wire := make([]byte, dns.Len(rr))
	end, err := dns.PackRR(rr, wire, 0, nil, false)
	if err == nil {
		rr, _, err = dns.UnpackRR(wire[:end], 0)
	}
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return rr
}

// unpack parses a message of ours strictly: nothing may stand behind it.
func unpack(t fataler, msg []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("%x: %v", msg, err)
	}
	return m
}

// signed is a query with a signature, and the session in which its answers are accepted.
func signed(t fataler, key tsig.Key, m *dns.Msg) ([]byte, *tsig.Session) {
	t.Helper()
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return tsig.Begin(key, msg, now())
}
