package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/session"
	"github.com/provisionr/provisionr/server/state"
)

// future applies objects to a copy.
func (c *cluster) future(caller *provisionrv1.Caller, objects *raftlogv1.ApplyObjects) (*state.Snapshot, error) {
	copied := c.store.Fork()
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{
		Id: newID(), Time: timestamppb.Now(), Caller: caller, FeatureLevel: fsm.Level,
		Command: &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: objects}},
	}}})
	if err != nil {
		return nil, err
	}
	results := fsm.New(copied, fsm.Level, slog.New(slog.DiscardHandler)).Apply(copied.Read().Version().GetIndex()+1, entry)
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return copied.Read(), nil
}

func preview(s *state.Snapshot, id string) (*agentv1.Preview, error) {
	compiled, err := session.Compile(s, id)
	if err != nil {
		return nil, err
	}
	return compiled.Preview(), nil
}

func (c *cluster) mayReboot(*state.Snapshot, *provisionrv1.Machine) error { return c.mayNotReboot }

// newAgent is the hash of the agent that the servers hold.
var newAgent = bytes.Repeat([]byte{7}, 32)

func agentProgram(goarch string) []byte {
	if goarch == "arm64" {
		return nil
	}
	return newAgent
}

// poolOf decodes what a preview says of the pool.
func poolOf(t *testing.T, ask *agentv1.Ask) *agentv1.PoolComponent {
	t.Helper()
	for i, ref := range ask.GetPreview().GetDesired().GetComponents() {
		if ref.GetName() == "pool" {
			pool := &agentv1.PoolComponent{}
			component := ask.GetPreview().GetComponents()[i]
			if err := proto.Unmarshal(component.GetBody(), pool); err != nil || !bytes.Equal(component.GetHash(), ref.GetHash()) {
				t.Fatalf("component %v: %v", ref, err)
			}
			return pool
		}
	}
	t.Fatal("no component of the pool")
	return nil
}

// small is a pool that any provider has room for.
func small(name string, size uint32, variables map[string]string) *provisionrv1.Object {
	o := pool(name, size)
	o.GetPool().Spec.Variables = variables
	return o
}

func TestPlanMachines(t *testing.T) {
	c := newCluster(t)
	c.commit(small("web", 3, map[string]string{"v": "1"}))
	c.commit(small("db", 1, nil))
	one, two := c.running("web", 1), c.running("web", 2)
	db := c.running("db", 1)
	c.agents.ask = func(_ context.Context, id string, ask *agentv1.Ask) (*agentv1.Answer, error) {
		if id == two {
			return nil, errs.New(errs.Unavailable, "not connected").WithHint("look at its console")
		}
		result := &agentv1.PreviewResult{Checked: 9}
		if v := poolOf(t, ask).GetVariables()["v"]; v != "1" {
			result.Differences = []*agentv1.ResourceChange{{Resource: "file//etc/v", Diff: "-1\n+" + v + strings.Repeat("x", 2*maxDiff)}, {Resource: "package", Error: "locked"}}
		}
		return &agentv1.Answer{Kind: &agentv1.Answer_Preview{Preview: result}}, nil
	}
	plan := func(role provisionrv1.Role, req *provisionrv1.PlanMachinesRequest) (map[string]*provisionrv1.MachinePlan, error) {
		t.Helper()
		resp, err := provisionrv1.NewManifestServiceClient(c.as(role)).PlanMachines(t.Context(), req)
		plans := map[string]*provisionrv1.MachinePlan{}
		for _, m := range resp.GetMachines() {
			plans[m.GetMachine()] = m
		}
		return plans, errs.FromRPC(err)
	}
	errorOf := func(plans map[string]*provisionrv1.MachinePlan, slot, want string) {
		t.Helper()
		if got := plans[slot].GetError(); got != want {
			t.Errorf("%s: error %q, want %q", slot, got, want)
		}
	}

	before := c.store.Read().Version()
	plans, err := plan(viewer, &provisionrv1.PlanMachinesRequest{Pool: "web"})
	c.ok(err)
	if got := plans["web-1"]; len(plans) != 3 || got.GetId() != one || got.GetChecked() != 9 || len(got.GetResources()) != 0 || got.GetError() != "" {
		t.Errorf("plans %v", plans)
	}
	errorOf(plans, "web-2", "not connected (look at its console)")
	errorOf(plans, "web-3", "it does not exist yet: it would be created")
	if plans, err := plan(viewer, &provisionrv1.PlanMachinesRequest{}); err != nil || len(plans) != 4 {
		t.Errorf("all pools: %v, error %v", plans, err)
	}

	// With objects it is about what would be.
	changed := &provisionrv1.PlanMachinesRequest{Objects: []*provisionrv1.Object{small("web", 1, map[string]string{"v": "2"}), small("new", 1, nil)}}
	if _, err := plan(viewer, changed); !errs.Is(err, errs.Denied) {
		t.Errorf("a viewer may look at all that a machine has: %v", err)
	}
	plans, err = plan(operator, changed)
	c.ok(err)
	got := plans["web-1"].GetResources()
	if len(got) != 2 || !strings.HasPrefix(got[0].GetDiff(), "-1\n+2x") || len(got[0].GetDiff()) != maxDiff || got[1].GetError() != "locked" {
		t.Errorf("resources %v", got)
	}
	errorOf(plans, "web-2", "it would be deleted")
	errorOf(plans, "new-1", "it does not exist yet: it would be created")
	if plans["db-1"] != nil || plans["web-3"] != nil {
		t.Errorf("plans %v", plans)
	}
	replaced := small("db", 1, nil)
	replaced.GetPool().Spec.Os.Release = "13"
	plans, err = plan(operator, &provisionrv1.PlanMachinesRequest{Objects: []*provisionrv1.Object{replaced}})
	c.ok(err)
	if got := plans["db-1"]; got.GetId() != db || !strings.HasPrefix(got.GetError(), "it would be replaced: ") {
		t.Errorf("%v", got)
	}
	for what, req := range map[string]*provisionrv1.PlanMachinesRequest{
		"no such pool":    {Pool: "none"},
		"a pool of none":  {Objects: []*provisionrv1.Object{small("web", 1, nil)}, Pool: "none"},
		"a wrong timeout": {Timeout: durationpb.New(-time.Second)},
	} {
		if _, err := plan(operator, req); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	wrong := small("web", 1, nil)
	wrong.GetPool().Spec.Network = "none"
	if _, err := plan(operator, &provisionrv1.PlanMachinesRequest{Objects: []*provisionrv1.Object{wrong}}); !errs.Is(err, errs.Invalid) {
		t.Errorf("what cannot be applied: %v", err)
	}
	// Users are made by the first calls of each role; pools stay as they are.
	if after := c.store.Read(); after.Pool("new") != nil || after.Pool("web").GetMetadata().GetGeneration() != 1 || after.Version().GetIndex() > before.GetIndex()+2 {
		t.Error("a plan has changed something")
	}
}

func TestPlansAreBounded(t *testing.T) {
	var room atomic.Int64
	room.Store(250)
	long := &agentv1.ResourceChange{Resource: "file//a", Diff: strings.Repeat("x", 100)}
	first, second := bring([]*agentv1.ResourceChange{long, long}, &room), bring([]*agentv1.ResourceChange{long, long}, &room)
	if len(first) != 2 || len(first[1].Diff) != 100 || len(second) != 1 || second[0].Resource != "and 2 more: ask about one pool" || second[0].Diff != "" {
		t.Errorf("%v, then %v", first, second)
	}
	room.Store(maxPreviews)
	if many := bring(make([]*agentv1.ResourceChange, maxResources+7), &room); len(many) != maxResources+1 || !strings.HasPrefix(many[maxResources].Resource, "and 7 more") {
		t.Errorf("%d resources", len(many))
	}
}

// report commits what an agent says of itself.
func (c *cluster) report(id string, status *provisionrv1.AgentStatus) {
	c.t.Helper()
	status.Reported = timestamppb.Now()
	_, err := c.Do(c.t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{
		ReportMachine: &raftlogv1.ReportMachine{Id: id, Agent: status},
	}})
	c.ok(err)
}

func (c *cluster) upgrade(selector string, timeout time.Duration) (out []string, err error) {
	c.t.Helper()
	stream, err := provisionrv1.NewMachineServiceClient(c.as(operator)).UpgradeAgents(c.t.Context(), &provisionrv1.UpgradeAgentsRequest{
		Selector: selector, Timeout: durationpb.New(timeout),
	})
	c.ok(err)
	for {
		r, err := stream.Recv()
		if err != nil {
			return out, errs.FromRPC(err)
		}
		text, _, _ := strings.Cut(r.Error, ":")
		out = append(out, strings.TrimSpace(r.Machine+" "+r.State+" "+text))
	}
}

func TestUpgradeAgents(t *testing.T) {
	c := newCluster(t)
	c.commit(small("web", 4, nil))
	var ids []string
	for i := range uint32(4) {
		ids = append(ids, c.running("web", i+1))
	}
	var asked []string
	c.agents.ask = func(_ context.Context, id string, ask *agentv1.Ask) (*agentv1.Answer, error) {
		if u := ask.GetUpgrade(); !bytes.Equal(u.GetSha256(), newAgent) || u.GetVersion() != "v0" {
			t.Errorf("asked for %v", u)
		}
		asked = append(asked, c.store.Read().Machine(id).GetSpec().GetSlot())
		switch id {
		case ids[2]:
			return nil, errs.New(errs.Conflict, "no room on its disk")
		case ids[3]:
			t.Error("another was begun after one had failed")
		}
		go func() {
			// The old agent says one more thing before it ends.
			c.report(id, &provisionrv1.AgentStatus{Version: "v0", Program: "01"})
			c.report(id, &provisionrv1.AgentStatus{Version: "v0", Program: hex.EncodeToString(newAgent)})
		}()
		// The session ends before the answer is there.
		return nil, errs.New(errs.Canceled, "its session ended")
	}
	c.report(ids[0], &provisionrv1.AgentStatus{Version: "v-1", Program: hex.EncodeToString(newAgent)})
	c.report(ids[1], &provisionrv1.AgentStatus{Version: "v0", Program: "01"})
	got, err := c.upgrade("pool/web", time.Minute)
	if want := []string{"web-1 current", "web-2 upgraded", "web-3 failed no room on its disk"}; !slices.Equal(got, want) {
		t.Errorf("%q, error %v, want %q", got, err, want)
	}
	if want := []string{"web-2", "web-3"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	if got, err := c.upgrade("nobody", time.Minute); !errs.Is(err, errs.NotFound) {
		t.Errorf("%q, error %v", got, err)
	}
}

func TestUpgradeThatDoesNotComeBack(t *testing.T) {
	c := newCluster(t)
	c.commit(small("web", 2, nil))
	one, two := c.running("web", 1), c.running("web", 2)
	c.agents.ask = func(context.Context, string, *agentv1.Ask) (*agentv1.Answer, error) { return &agentv1.Answer{}, nil }
	if got, _ := c.upgrade("web-1", time.Millisecond); !slices.Equal(got, []string{"web-1 failed the new agent has not connected within 1ms"}) {
		t.Errorf("%q", got)
	}
	// An agent that does not tell its program is known by its version.
	c.report(one, &provisionrv1.AgentStatus{Version: "v0"})
	if got, _ := c.upgrade("web-1", time.Minute); !slices.Equal(got, []string{"web-1 current"}) {
		t.Errorf("%q", got)
	}
	_, err := c.Do(t.Context(), nil, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{
		ReportMachine: &raftlogv1.ReportMachine{Id: two, Facts: &provisionrv1.Facts{Architecture: "aarch64"}},
	}})
	c.ok(err)
	if got, _ := c.upgrade("web-2", time.Minute); len(got) != 1 || !strings.HasPrefix(got[0], "web-2 failed the servers have no agent for arm64") {
		t.Errorf("%q", got)
	}
}

func TestRebootMachine(t *testing.T) {
	c := newCluster(t)
	c.commit(small("web", 1, nil))
	id := c.running("web", 1)
	var asked *agentv1.Reboot
	var refusal error
	c.agents.ask = func(_ context.Context, _ string, ask *agentv1.Ask) (*agentv1.Answer, error) {
		asked = ask.GetReboot()
		return &agentv1.Answer{}, refusal
	}
	reboot := func(reason string) error {
		_, err := provisionrv1.NewMachineServiceClient(c.as(operator)).RebootMachine(t.Context(), &provisionrv1.RebootMachineRequest{Name: "web-1", Reason: reason})
		return errs.FromRPC(err)
	}
	if err := reboot(""); !errs.Is(err, errs.Conflict) || asked != nil {
		t.Errorf("before its agent has reported: %v", err)
	}
	c.report(id, &provisionrv1.AgentStatus{BootId: "b1"})
	c.mayNotReboot = errs.New(errs.Conflict, "too many are away")
	if err := reboot(""); !errs.Is(err, errs.Conflict) || err.Error() != "too many are away" || asked != nil {
		t.Errorf("beyond the budget: %v", err)
	}
	c.mayNotReboot = nil
	c.ok(reboot(""))
	if asked.GetBootId() != "b1" || asked.GetReason() != "asked for by operator" {
		t.Errorf("asked for %v", asked)
	}
	if r := c.store.Read().Machine(id).GetStatus().GetReboot(); r.GetBootId() != "b1" || time.Until(r.GetDeadline().AsTime()) < 9*time.Minute {
		t.Errorf("recorded %v", r)
	}
	if err := reboot(""); !errs.Is(err, errs.Conflict) {
		t.Errorf("while one is under way: %v", err)
	}
	c.report(id, &provisionrv1.AgentStatus{BootId: "b2"})
	refusal = errs.New(errs.Unavailable, "not connected")
	if err := reboot("a new kernel"); !errs.Is(err, errs.Unavailable) || !strings.Contains(errs.HintOf(err), "asked again") {
		t.Errorf("an agent that is away: %v", err)
	}
	if r := c.store.Read().Machine(id).GetStatus().GetReboot(); r.GetReason() != "a new kernel" {
		t.Errorf("recorded %v", r)
	}
}
