package session

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// confirmPort is where an agent greets with its machine's id.
	confirmPort = 7446
	// reachTimeout bounds one attempt to reach a port, greeting included.
	reachTimeout = 3 * time.Second
	// probeTimeout bounds the wait for a peer that tries for the server.
	probeTimeout = 2*reachTimeout + time.Second
	// maxPeers is how many peers try where the server itself fails.
	maxPeers = 3
	// maxGreeting bounds the greeting that is read, in octets.
	maxGreeting = 255
	// maxConfirms bounds the confirmations in progress on this member.
	maxConfirms = 128
)

// Confirm says who reaches the asked ports of the calling machine from outside: this member or, for the ports that it
// does not reach, some of the machine's peers. That nobody does is no error: the attempts say why.
func (h *Hub) Confirm(ctx context.Context, req *agentv1.ConfirmRequest) (*agentv1.ConfirmResponse, error) {
	m, err := h.calling(ctx, "confirm")
	if err != nil {
		return nil, err
	}
	ports := slices.Compact(slices.Sorted(slices.Values(req.GetPorts())))
	for _, port := range ports {
		if port != sshPort && port != confirmPort {
			return nil, errs.New(errs.Denied, "port %d is not one that can be confirmed: these are %d and %d", port, sshPort, confirmPort)
		}
	}
	giveBack, err := h.confirms.take(m.GetMetadata().GetName(), "confirmations")
	if err != nil {
		return nil, err
	}
	defer giveBack()
	snapshot := h.cfg.State.Read()
	addresses := dnszone.Addresses(snapshot, m)
	if len(addresses) == 0 {
		return nil, errs.New(errs.Conflict, "the address of %s is not known", m.GetSpec().GetSlot())
	}
	address := addresses[0].String()
	resp := &agentv1.ConfirmResponse{Reached: h.reach(ctx, address, ports)}
	var missed []uint32
	for _, r := range resp.Reached {
		if !greeted(r, m.GetMetadata().GetName()) {
			missed = append(missed, r.GetPort())
		}
	}
	if len(missed) > 0 {
		resp.Reached = append(resp.Reached, h.probe(ctx, snapshot, m, &agentv1.Probe{Address: address, Ports: missed})...)
	}
	return resp, nil
}

// greeted says whether an attempt met what is meant to listen on the port.
func greeted(r *agentv1.Reach, machineID string) bool {
	if r.GetPort() == confirmPort {
		return r.GetGreeting() == machineID
	}
	return strings.HasPrefix(r.GetGreeting(), "SSH-")
}

// reach has this member itself try all ports at the same time.
func (h *Hub) reach(ctx context.Context, address string, ports []uint32) []*agentv1.Reach {
	reached := make([]*agentv1.Reach, len(ports))
	var all sync.WaitGroup
	for i, port := range ports {
		all.Go(func() { reached[i] = h.reachPort(ctx, address, port) })
	}
	all.Wait()
	return reached
}

func (h *Hub) reachPort(ctx context.Context, address string, port uint32) *agentv1.Reach {
	r := &agentv1.Reach{Port: port, Observer: h.cfg.Member}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	conn, err := h.cfg.Dial(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		r.Error = cut(err.Error(), maxText)
		return r
	}
	defer conn.Close()
	if host, _, err := net.SplitHostPort(conn.LocalAddr().String()); err == nil {
		r.Address = host
	}
	// Ending ctx ends the read.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if r.Greeting, err = greeting(conn); err != nil {
		r.Error = cut("no greeting: "+err.Error(), maxText)
	}
	return r
}

// greeting reads the first line. One that is longer than the bound is cut there.
func greeting(from io.Reader) (string, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(from, maxGreeting), maxGreeting+1).ReadString('\n')
	line = cut(strings.TrimRight(line, "\r\n"), maxGreeting)
	if line != "" || errors.Is(err, io.EOF) && len(line) == maxGreeting {
		return line, nil
	}
	return "", cmp.Or(err, errors.New("an empty line"))
}

// probe has peers of the machine try at the same time, and returns their attempts.
func (h *Hub) probe(ctx context.Context, snapshot *state.Snapshot, m *provisionrv1.Machine, probe *agentv1.Probe) []*agentv1.Reach {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	connected, _ := h.cfg.Peers.Connected()
	peers := peersOf(snapshot, m, connected)
	attempts := make([][]*agentv1.Reach, len(peers))
	var all sync.WaitGroup
	for i, peer := range peers {
		all.Go(func() {
			answer, err := h.cfg.Peers.Ask(ctx, peer.GetMetadata().GetName(), &agentv1.Ask{Kind: &agentv1.Ask_Probe{Probe: probe}})
			if err != nil {
				for _, port := range probe.GetPorts() {
					attempts[i] = append(attempts[i], &agentv1.Reach{Port: port, Error: cut("the peer could not be asked: "+err.Error(), maxText)})
				}
			}
			for _, r := range answer.GetReached().GetReached() {
				if len(attempts[i]) < len(probe.GetPorts()) && slices.Contains(probe.GetPorts(), r.GetPort()) {
					attempts[i] = append(attempts[i], &agentv1.Reach{
						Port: r.GetPort(), Greeting: cut(r.GetGreeting(), maxGreeting), Error: cut(r.GetError(), maxText), Address: cut(r.GetAddress(), maxID),
					})
				}
			}
			for _, r := range attempts[i] {
				r.Observer, r.Address = peer.GetSpec().GetSlot(), cmp.Or(r.GetAddress(), addressOf(snapshot, peer))
			}
		})
	}
	all.Wait()
	return slices.Concat(attempts...)
}

// peersOf returns connected machines that may look at one: of its pool, the next ones by index first, then of its network.
func peersOf(s *state.Snapshot, m *provisionrv1.Machine, connected map[string]bool) []*provisionrv1.Machine {
	if len(connected) == 0 {
		return nil
	}
	id, pool, network := m.GetMetadata().GetName(), m.GetSpec().GetPool(), m.GetSpec().GetNetwork()
	var next, before, others []*provisionrv1.Machine
	for other := range s.MachinesOf(pool) {
		switch name := other.GetMetadata().GetName(); {
		case name == id || !connected[name]:
		case other.GetSpec().GetIndex() > m.GetSpec().GetIndex():
			next = append(next, other)
		default:
			before = append(before, other)
		}
	}
	byIndex := func(a, b *provisionrv1.Machine) int {
		return cmp.Compare(a.GetSpec().GetIndex(), b.GetSpec().GetIndex())
	}
	slices.SortStableFunc(next, byIndex)
	slices.SortStableFunc(before, byIndex)
	peers := append(next, before...)
	if len(peers) < maxPeers {
		for other := range s.Machines() {
			if connected[other.GetMetadata().GetName()] && other.GetSpec().GetPool() != pool && other.GetSpec().GetNetwork() == network {
				others = append(others, other)
				if len(peers)+len(others) >= maxPeers {
					break
				}
			}
		}
		peers = append(peers, others...)
	}
	return peers[:min(len(peers), maxPeers)]
}

func addressOf(s *state.Snapshot, m *provisionrv1.Machine) string {
	if addresses := dnszone.Addresses(s, m); len(addresses) > 0 {
		return addresses[0].String()
	}
	return ""
}

// ownPeers are the machines with a session here.
type ownPeers struct{ *Hub }

func (o ownPeers) Connected() (map[string]bool, bool) {
	_, ids := o.Sessions()
	machines := make(map[string]bool, len(ids))
	for _, id := range ids {
		machines[id] = true
	}
	return machines, true
}
