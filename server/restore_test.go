package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// trio is a cluster whose members run in this process.
type trio struct {
	t       *testing.T
	agents  string
	members map[string]*running
	admin   Credentials
}

// running is a member, and how to end it.
type running struct {
	*Server
	api  *grpc.ClientConn
	stop func()
}

func newTrio(t *testing.T) *trio {
	c := &trio{t: t, agents: t.TempDir(), members: map[string]*running{}}
	for _, name := range []string{"provisionr-agent-amd64", "provisionr-wireguard-amd64"} {
		if err := os.WriteFile(filepath.Join(c.agents, name), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			m.stop()
		}
	})
	return c
}

// join starts a further member, which begins the cluster if it is the first.
func (c *trio) join(name string) *running {
	c.t.Helper()
	config := Config{
		Name: name, DataDir: c.t.TempDir(), CacheDir: c.t.TempDir(), AgentDir: c.agents, Advertise: "127.0.0.1",
		Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Logger: slog.New(slog.DiscardHandler), Version: "v1",
		Ports: Ports{API: freePort(c.t), Agent: freePort(c.t), Member: freePort(c.t), DNS: freePort(c.t)},
		Admin: func(admin Credentials) error { c.admin = admin; return nil },
		// A change of leader during a restore stops a member, which is not what is tested here.
		patience: 2 * time.Second,
	}
	for _, m := range c.members {
		token, err := provisionrv1.NewClusterServiceClient(m.api).CreateJoinToken(c.t.Context(), &provisionrv1.CreateJoinTokenRequest{})
		if err != nil {
			c.t.Fatal(err)
		}
		config.JoinToken, config.JoinAddress = token.GetToken(), m.config.hostPort(m.config.Ports.API)
		break
	}
	config.Bootstrap = len(c.members) == 0
	return c.start(config)
}

// start runs a member until it is ready.
func (c *trio) start(config Config) *running {
	c.t.Helper()
	ready := make(chan struct{})
	config.Ready = func() { close(ready) }
	s, release, err := open(config)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	ended := make(chan error, 1)
	go func() {
		err := s.run(ctx)
		release()
		ended <- err
	}()
	m := &running{Server: s, stop: func() {
		delete(c.members, config.Name)
		cancel()
		if err := <-ended; err != nil {
			c.t.Errorf("%s: %v", config.Name, err)
		}
	}}
	c.members[config.Name] = m
	select {
	case <-ready:
	case err := <-ended:
		delete(c.members, config.Name)
		c.t.Fatalf("%s: %v", config.Name, err)
	case <-time.After(30 * time.Second):
		c.t.Fatalf("%s is not ready", config.Name)
	}
	m.api = dialAPI(c.t, config.Ports.API, c.admin)
	c.eventually(config.Name+" votes", func() error {
		if !m.node.Status().GetVoter() {
			return errors.New("no vote")
		}
		return nil
	})
	return m
}

// leader returns the member that leads.
func (c *trio) leader() (leader *running) {
	c.t.Helper()
	c.eventually("a leader", func() error {
		for _, m := range c.members {
			if m.node.IsLeader() {
				leader = m
				return nil
			}
		}
		return errors.New("none leads")
	})
	return leader
}

// lead has the others end and come back until a member leads.
func (c *trio) lead(name string) {
	c.t.Helper()
	for range 20 {
		leader := c.leader()
		if leader.config.Name == name {
			return
		}
		leader.stop()
		c.start(leader.config)
	}
	c.t.Fatalf("%s never leads", name)
}

func (c *trio) eventually(what string, holds func() error) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("not in time: %s: %v", what, err)
		}
	}
}

// save returns a snapshot of now.
func (c *trio) save() []byte {
	c.t.Helper()
	var saved bytes.Buffer
	if err := c.leader().node.SaveSnapshot(&saved); err != nil {
		c.t.Fatal(err)
	}
	return saved.Bytes()
}

// healthy waits until all members answer the same octets, signed, and each can sign certificates.
func (c *trio) healthy(what string) {
	c.t.Helper()
	c.eventually(what, func() error {
		var same []byte
		for name, m := range c.members {
			answer, err := signed(m.config.Ports.DNS)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if same != nil && !bytes.Equal(same, answer) {
				return fmt.Errorf("%s answers other octets:\n%x\n%x", name, answer, same)
			}
			same = answer
			key, err := pki.NewKey()
			if err != nil {
				return err
			}
			if _, err := m.ca.IssueServer("other", key.Public(), nil); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if f := faultsOf(m.store.Read(), m.node.Servers()); f.String() != "" {
				return errors.New(f.String())
			}
		}
		return nil
	})
}

// said reports whether an event of a reason has all of the words.
func (c *trio) said(reason string, words ...string) {
	c.t.Helper()
	c.eventually("event "+reason, func() error {
		var all []string
		for e := range c.leader().store.Read().Events(0) {
			text := e.GetReason() + " " + e.GetMessage()
			if e.GetReason() == reason && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
				return nil
			}
			all = append(all, text)
		}
		return errors.New(strings.Join(all, "\n"))
	})
}

// signed asks for www.lab.example with DNSSEC; an answer without a signature is an error.
func signed(port uint16) ([]byte, error) {
	const doFlag = 1 << 15
	name := dnsmessage.MustNewName("www.lab.example.")
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeOPT, Class: 1232, TTL: doFlag},
			Body:   &dnsmessage.OPTResource{},
		}},
	}
	packed, err := query.Pack()
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		return nil, err
	}
	const rrsig = dnsmessage.Type(46)
	if !slices.ContainsFunc(m.Answers, func(r dnsmessage.Resource) bool { return r.Header.Type == rrsig }) {
		return nil, fmt.Errorf("no signature: %s", m.GoString())
	}
	return answer, nil
}

// TestRestoreOlderThanMember: a snapshot of before a member's join leaves nobody without the data key, whoever leads, and one
// that holds a removed member gives it nothing.
func TestRestoreOlderThanMember(t *testing.T) {
	c := newTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c.join("a")
	_, err := provisionrv1.NewManifestServiceClient(c.members["a"].api).Apply(ctx, &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{
		{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
			ApiVersion: "provisionr/v1", Kind: "Zone", Metadata: &provisionrv1.Metadata{Name: "lab"},
			Spec: &provisionrv1.ZoneSpec{Domain: "lab.example", Dnssec: "presigned", Records: []*provisionrv1.StaticRecord{{Name: "www", Addresses: []string{"10.9.0.1"}}}},
		}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.join("b")
	c.healthy("before the snapshot")
	two := c.save()
	c.join("c")
	c.healthy("three members")
	three := c.save()

	// Through a member that does not lead, as an operator might.
	via := c.members["a"]
	if via.node.IsLeader() {
		via = c.members["b"]
	}
	if err := via.node.RestoreSnapshot(ctx, bytes.NewReader(two)); err != nil {
		t.Fatal(err)
	}
	if m := via.store.Read().Member("c"); m == nil {
		t.Error("the third member has no record after the restore")
	}
	c.healthy("the first restore")
	c.said("SnapshotRestored", "stay: c")
	c.said("DataKeyWrapped", "for server c")

	c.lead("c")
	c.healthy("the third member leads")
	if _, err := provisionrv1.NewClusterServiceClient(c.members["c"].api).CreateJoinToken(ctx, &provisionrv1.CreateJoinTokenRequest{}); err != nil {
		t.Error(err)
	}
	if err := c.leader().node.RestoreSnapshot(ctx, bytes.NewReader(two)); err != nil {
		t.Fatal(err)
	}
	c.healthy("a restore by one that the snapshot does not know")

	before := c.members["a"].store.Read().SealedKey().GetNewest()
	_, err = provisionrv1.NewClusterServiceClient(c.members["a"].api).RemoveMember(ctx, &provisionrv1.RemoveMemberRequest{Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	c.members["c"].stop()
	c.healthy("the third member is removed")
	if err := c.leader().node.RestoreSnapshot(ctx, bytes.NewReader(three)); err != nil {
		t.Fatal(err)
	}
	c.healthy("a restore that knows of a removed member")
	c.said("DataKeyReplaced", "known to c")
	s := c.leader().store.Read()
	if key := s.SealedKey(); s.Member("c") != nil || key.GetWrapped()["c"] != nil || key.GetNewest() <= before {
		t.Errorf("the removed member has a record or the key: %v, data key %d after %d", s.Member("c"), key.GetNewest(), before)
	}

	// The leader leaves too: the one that is left has no other to ask.
	_, err = provisionrv1.NewClusterServiceClient(c.members["b"].api).RemoveMember(ctx, &provisionrv1.RemoveMemberRequest{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	c.members["a"].stop()
	if _, err := provisionrv1.NewClusterServiceClient(c.members["b"].api).CreateJoinToken(ctx, &provisionrv1.CreateJoinTokenRequest{}); err != nil {
		t.Error(err)
	}
	c.healthy("one member")
}
