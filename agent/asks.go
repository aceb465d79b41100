package agent

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// maxProbed bounds the ports of one question, maxGreeting what is read of each in bytes.
	maxProbed    = 64
	maxGreeting  = 255
	probeTimeout = 5 * time.Second
	// grace is what an answer is given to leave before this process ends.
	grace = 500 * time.Millisecond
	// maxDifferences bounds an answer: with diffs of at most 4 KiB it stays below 2 MiB.
	maxDifferences = 512
	// rebootTarget is started to boot again: the agent's unit may not reboot by itself (systemd.special(7)).
	rebootTarget = "reboot.target"
)

// ask does what a server wants.
func (a *Agent) ask(ctx context.Context, ask *agentv1.Ask) (*agentv1.Answer, func()) {
	answer := &agentv1.Answer{}
	var next func(context.Context) error
	var err error
	switch kind := ask.Kind.(type) {
	case *agentv1.Ask_Probe:
		answer.Kind = &agentv1.Answer_Reached{Reached: &agentv1.ReachList{Reached: a.probe(ctx, kind.Probe)}}
	case *agentv1.Ask_Preview:
		var result *agentv1.PreviewResult
		if result, err = a.preview(ctx, kind.Preview); err == nil {
			answer.Kind = &agentv1.Answer_Preview{Preview: result}
		}
	case *agentv1.Ask_Upgrade:
		if a.upgrader == nil {
			err = errs.New(errs.Unsupported, "cannot upgrade the agent of this machine")
			break
		}
		next, err = a.upgrader.Prepare(ctx, kind.Upgrade.Sha256, kind.Upgrade.Version)
	case *agentv1.Ask_Reboot:
		a.config.Logger.Info("rebooting for an operator", "reason", kind.Reboot.Reason)
		next = func(ctx context.Context) error { return a.config.Host.Units.Start(ctx, rebootTarget) }
	default:
		err = errs.New(errs.Unsupported, "this agent does not know what it is asked: it is older than the server")
	}
	if err != nil {
		answer.Error = clip(err.Error())
	}
	if next == nil {
		return answer, nil
	}
	return answer, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-ctx.Done(): // said or not: the session ended
		case <-timer.C:
		}
		// It outlives the session, which may end by it, but not the agent, whose end it may be.
		life, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		go func() {
			select {
			case <-a.ending:
				cancel()
			case <-life.Done():
			}
		}()
		if err := next(life); err != nil {
			a.config.Logger.Error("cannot do what a server asked for", "error", err)
		}
	}
}

// probe reaches ports of a peer and reads how each greets.
func (a *Agent) probe(ctx context.Context, p *agentv1.Probe) []*agentv1.Reach {
	name := a.identity.MachineID()
	if s := a.state.Load(); s != nil {
		name = s.Machine.Name
	}
	ports := p.Ports[:min(len(p.Ports), maxProbed)]
	reached := make([]*agentv1.Reach, len(ports))
	var all sync.WaitGroup
	for i, port := range ports {
		all.Go(func() {
			reached[i] = reach(ctx, p.Address, port)
			reached[i].Observer = name
		})
	}
	all.Wait()
	return reached
}

func reach(ctx context.Context, address string, port uint32) *agentv1.Reach {
	r := &agentv1.Reach{Port: port}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.FormatUint(uint64(port), 10)))
	if err != nil {
		r.Error = clip(err.Error())
		return r
	}
	defer conn.Close()
	if local, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		r.Address = local.IP.String()
	}
	deadline, _ := ctx.Deadline()
	err = conn.SetReadDeadline(deadline)
	var line string
	if err == nil {
		line, err = bufio.NewReaderSize(io.LimitReader(conn, maxGreeting), maxGreeting).ReadString('\n')
	}
	r.Greeting = strings.ToValidUTF8(strings.TrimRight(line, "\r\n"), "?")
	if err != nil && line == "" {
		r.Error = clip("connected, and not greeted: " + err.Error())
	}
	return r
}

func (a *Agent) check(ctx context.Context, s *desired.State) (run *converge.Run, err error) {
	defer contain(&err)
	return converge.Check(ctx, a.config.Parts.Resources(s, a.config.Host), a.config.Host.Units.Ahead)
}

// preview checks the machine against another desired state.
func (a *Agent) preview(ctx context.Context, p *agentv1.Preview) (*agentv1.PreviewResult, error) {
	bodies := make(map[string][]byte, len(p.Components))
	for _, c := range p.Components {
		bodies[string(c.GetHash())] = c.GetBody()
	}
	if p.Desired == nil {
		return nil, errs.New(errs.Invalid, "cannot check against nothing")
	}
	s, err := desired.Decode(p.Desired, func(hash []byte) ([]byte, bool) {
		body, ok := bodies[string(hash)]
		return body, ok
	})
	if err != nil {
		return nil, err
	}
	if s.Machine.MachineId != a.identity.MachineID() {
		return nil, errs.New(errs.Invalid, "cannot check: the desired state is for machine %s", s.Machine.MachineId)
	}
	// Nothing is kept, and nothing fetched that only an Apply needs.
	s.Secrets, s.Programs, s.HostCertifier = a.secrets.Look(s), programs.New(a.config.Host, nil).For(s), a.link
	run, err := a.check(ctx, s)
	if err != nil {
		return nil, err
	}
	result := &agentv1.PreviewResult{Checked: uint32(len(run.Outcomes))}
	for _, o := range run.Outcomes {
		if o.Diff == "" && o.Err == nil || len(result.Differences) == maxDifferences {
			continue
		}
		one := &agentv1.ResourceChange{Resource: o.Resource, Diff: o.Diff, At: timestamppb.New(run.Ended), Audit: true}
		if o.Err != nil {
			one.Error = clip(errors.Unwrap(o.Err).Error())
		}
		result.Differences = append(result.Differences, one)
	}
	return result, nil
}
