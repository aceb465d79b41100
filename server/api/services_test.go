package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func TestPlanAndApply(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewManifestServiceClient(c.as(operator))
	ctx := t.Context()

	plan, err := api.Plan(ctx, &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{pool("web", 2)}})
	c.ok(err)
	change := plan.Changes[0]
	if change.Action != "create" || change.Kind != "Pool" || change.Name != "web" || !slices.Equal(change.Machines, []string{"create web-1", "create web-2"}) {
		t.Errorf("plan of a new pool: %v", change)
	}
	if c.store.Read().Pool("web") != nil {
		t.Fatal("a plan changed the state")
	}
	first, err := api.Apply(ctx, &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{pool("web", 2)}, RequestId: "one"})
	c.ok(err)
	if row := c.store.Read().Pool("web"); row.GetSpec().GetZone() != "default" || row.GetMetadata().GetUid() == "" {
		t.Errorf("applied without defaults or uid: %v", row)
	}
	c.machine("web", 1)
	c.machine("web", 2)

	again, err := api.Apply(ctx, &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{pool("web", 2)}})
	c.ok(err)
	if a := again.Changes[0]; a.Action != "none" || len(a.Fields) > 0 || c.store.Read().Pool("web").GetMetadata().GetGeneration() != 1 {
		t.Errorf("applied again: %v", a)
	}

	other := pool("web", 1)
	other.GetPool().Spec.Variables = map[string]string{"colour": "blue"}
	plan, err = api.Plan(ctx, &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{other}})
	c.ok(err)
	change = plan.Changes[0]
	if change.Action != "update" || !slices.Equal(change.Machines, []string{"converge web-1", "delete web-2"}) || len(change.Warnings) != 1 {
		t.Errorf("plan of a smaller, changed pool: %v", change)
	}
	paths := map[string]string{}
	for _, f := range change.Fields {
		paths[f.Path] = f.Before + ">" + f.After
	}
	if paths["spec.size"] != "2>1" || !strings.HasSuffix(paths["spec.variables.colour"], ">blue") || len(paths) != 2 {
		t.Errorf("fields: %v", paths)
	}
	bigger := pool("web", 2)
	bigger.GetPool().Spec.Hardware = &provisionrv1.Hardware{Cpus: 4}
	plan, err = api.Plan(ctx, &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{bigger}})
	c.ok(err)
	if m := plan.Changes[0].Machines; !slices.Equal(m, []string{"replace web-1", "replace web-2"}) {
		t.Errorf("plan of other hardware: %v", m)
	}

	// The same request id has its first result and changes nothing.
	repeated, err := api.Apply(ctx, &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{other}, RequestId: "one"})
	c.ok(err)
	if diff := cmp.Diff(first.Version.String(), repeated.Version.String()); diff != "" || c.store.Read().Pool("web").GetSpec().GetSize() != 2 {
		t.Errorf("a repeated request id changed something: %s", diff)
	}
}

func TestApplyRefuses(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewManifestServiceClient(c.as(operator))
	user := &provisionrv1.Object{Kind: &provisionrv1.Object_User{User: &provisionrv1.User{
		Metadata: &provisionrv1.Metadata{Name: "eve"}, Spec: &provisionrv1.UserSpec{Role: admin},
	}}}
	token := &provisionrv1.Object{Kind: &provisionrv1.Object_Token{Token: &provisionrv1.Token{Metadata: &provisionrv1.Metadata{Name: "t"}, User: "admin"}}}
	lost := pool("web", 1)
	lost.GetPool().Spec.Provider = "nowhere"
	tests := []struct {
		name    string
		objects []*provisionrv1.Object
		kind    errs.Kind
		says    string
	}{
		{"operator makes an admin", []*provisionrv1.Object{user}, errs.Denied, "admin"},
		{"operator changes a network", firstObjects()[2:], errs.Denied, "admin"},
		{"a token", []*provisionrv1.Object{token}, errs.Invalid, "Token"},
		{"nothing", nil, errs.Invalid, "objects"},
		{"empty object", []*provisionrv1.Object{{}}, errs.Invalid, "kind"},
		{"too large", []*provisionrv1.Object{pool("web", 10001)}, errs.Invalid, "size"},
		{"bad name", []*provisionrv1.Object{pool("Web_1", 1)}, errs.Invalid, "name"},
		{"unknown provider", []*provisionrv1.Object{lost}, errs.Invalid, "nowhere"},
		{"one good, one bad", []*provisionrv1.Object{pool("web", 1), pool("-", 1)}, errs.Invalid, "name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := api.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: tt.objects})
			if err = errs.FromRPC(err); !errs.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
		})
	}
	if c.store.Read().Pool("web") != nil || c.store.Read().User("eve") != nil {
		t.Error("something was applied")
	}
	admins := provisionrv1.NewManifestServiceClient(c.as(admin))
	_, err := admins.Apply(t.Context(), &provisionrv1.ApplyRequest{Objects: []*provisionrv1.Object{user}})
	c.ok(err)
}

func TestREST(t *testing.T) {
	c := newCluster(t)
	client := c.web(c.cert(pki.User, "admin"))
	code, data := c.request(client, http.MethodPost, "/v1/apply",
		`{"objects":[{"pool":{"metadata":{"name":"web"},"spec":{"size":1,"os":{"distribution":"debian","release":"12"}}}}]}`)
	if code != http.StatusOK {
		t.Fatalf("apply: %d %s", code, data)
	}
	var pools provisionrv1.ListPoolsResponse
	_, data = c.request(client, http.MethodGet, "/v1/pools?consistency=stale", "")
	c.decode(data, &pools)
	if len(pools.Pools) != 1 || pools.Pools[0].GetStatus().GetState() != "progressing" || pools.Version.GetIndex() == 0 {
		t.Errorf("pools: %s", data)
	}
	tests := []struct {
		name, method, path, body string
		kind                     errs.Kind
	}{
		{"no such pool", http.MethodGet, "/v1/pools/none", "", errs.NotFound},
		{"no such machine", http.MethodGet, "/v1/machines/none", "", errs.NotFound},
		{"broken JSON", http.MethodPost, "/v1/apply", "{", errs.Invalid},
		{"unknown field", http.MethodPost, "/v1/pools/web:scale", `{"sise":1}`, errs.Invalid},
		{"wrong type", http.MethodPost, "/v1/pools/web:scale", `{"size":"many"}`, errs.Invalid},
		{"out of range", http.MethodPost, "/v1/pools/web:scale", `{"size":10001}`, errs.Invalid},
		{"bad consistency", http.MethodGet, "/v1/pools?consistency=perfect", "", errs.Invalid},
		{"request too large", http.MethodPost, "/v1/apply", `{"x":"` + strings.Repeat("a", MaxRequest) + `"}`, errs.Invalid},
		{"deleting a used zone", http.MethodDelete, "/v1/zones/default", "", errs.Conflict},
		{"unknown watch kind", http.MethodGet, "/v1/watch?kinds=secrets", "", errs.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, data := c.request(client, tt.method, tt.path, tt.body)
			if b := c.failure(data); b.Kind != tt.kind || b.Code != code || code != tt.kind.HTTPStatus() {
				t.Errorf("%d %.200s", code, data)
			}
		})
	}
}

func TestLongPoll(t *testing.T) {
	c := newCluster(t)
	api := provisionrv1.NewPoolServiceClient(c.as(viewer))
	c.commit(pool("web", 1))
	first, err := api.ListPools(t.Context(), &provisionrv1.ListPoolsRequest{})
	c.ok(err)
	index := first.Version.Index

	// The first poll may answer early, for the server does not know what changed before it was asked.
	early, err := api.ListPools(t.Context(), &provisionrv1.ListPoolsRequest{Index: index, Wait: durationpb.New(time.Millisecond)})
	c.ok(err)
	type answer struct {
		resp *provisionrv1.ListPoolsResponse
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		resp, err := api.ListPools(t.Context(), &provisionrv1.ListPoolsRequest{Index: early.Version.Index})
		answers <- answer{resp, err}
	}()
	c.user("unrelated", viewer)
	c.commit(pool("db", 1))
	a := <-answers
	c.ok(a.err)
	// One that answered to the unrelated change would have seen one pool.
	if len(a.resp.Pools) != 2 {
		t.Errorf("answered with %d pools", len(a.resp.Pools))
	}
	if _, err := api.ListPools(t.Context(), &provisionrv1.ListPoolsRequest{Index: 1, Wait: durationpb.New(-1)}); !errs.Is(errs.FromRPC(err), errs.Invalid) {
		t.Errorf("a negative wait: %v", err)
	}
}

func TestExec(t *testing.T) {
	c := newCluster(t)
	const machines = 3 * FanOut
	c.commit(pool("web", machines))
	for i := range uint32(machines) {
		c.running("web", i+1)
	}
	var at, most atomic.Int32
	var once sync.Once
	full := make(chan struct{})
	c.agents.exec = func(ctx context.Context, slot string, send func(*provisionrv1.ExecResponse) error) error {
		n := at.Add(1)
		defer at.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == FanOut {
			once.Do(func() { close(full) })
		}
		<-full // Every worker is at work at once.
		if slot == "web-7" {
			return errs.New(errs.Unavailable, "cannot reach it").WithHint("wait")
		}
		if err := send(&provisionrv1.ExecResponse{Event: &provisionrv1.ExecResponse_Stdout{Stdout: []byte("hi")}}); err != nil {
			return err
		}
		return send(&provisionrv1.ExecResponse{Event: &provisionrv1.ExecResponse_Exit{Exit: 0}})
	}
	run := func(selector string) (map[string]int, string, error) {
		stream, err := provisionrv1.NewMachineServiceClient(c.as(operator)).Exec(t.Context(), &provisionrv1.ExecRequest{Selector: selector, Command: []string{"true"}})
		c.ok(err)
		seen, failure := map[string]int{}, ""
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return seen, failure, nil
			}
			if err != nil {
				return seen, failure, err
			}
			seen[r.Machine]++
			failure += r.GetError()
		}
	}
	seen, failure, err := run("pool/web")
	c.ok(err)
	if len(seen) != machines || seen["web-1"] != 2 || seen["web-7"] != 1 || failure != "cannot reach it (wait)" {
		t.Errorf("%d machines, web-1 %d, web-7 %d, %q", len(seen), seen["web-1"], seen["web-7"], failure)
	}
	if most.Load() != FanOut {
		t.Errorf("%d at a time", most.Load())
	}
	for selector, kind := range map[string]errs.Kind{"pool/none": errs.NotFound, "none": errs.NotFound} {
		if _, _, err := run(selector); !errs.Is(errs.FromRPC(err), kind) {
			t.Errorf("%s: %v", selector, err)
		}
	}
	// Over REST it is a stream of JSON lines.
	code, data := c.request(c.web(c.cert(pki.User, "operator")), http.MethodPost, "/v1/machines:exec", `{"selector":"web-1.provisionr.internal","command":["true"]}`)
	if code != http.StatusOK || bytes.Count(bytes.TrimSpace(data), []byte("\n")) != 1 || !bytes.Contains(data, []byte(`"machine":"web-1"`)) {
		t.Errorf("%d %s", code, data)
	}
}

func TestVerifyPool(t *testing.T) {
	c := newCluster(t)
	c.commit(pool("web", 2))
	for i := range uint32(2) {
		c.running("web", i+1)
	}
	api := provisionrv1.NewPoolServiceClient(c.as(viewer))
	var asked atomic.Int32
	c.agents.verify = func(context.Context, string) error {
		asked.Add(1)
		return errs.New(errs.Unavailable, "no session")
	}
	resp, err := api.VerifyPool(t.Context(), &provisionrv1.VerifyPoolRequest{Pool: "web"})
	c.ok(err)
	if len(resp.Machines) != 2 || asked.Load() != 2 {
		t.Errorf("%d machines, %d asked", len(resp.Machines), asked.Load())
	}
	c.agents.verify = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	_, err = api.VerifyPool(t.Context(), &provisionrv1.VerifyPoolRequest{Pool: "web", Timeout: durationpb.New(10 * time.Millisecond)})
	if err = errs.FromRPC(err); !errs.Is(err, errs.Timeout) || !strings.Contains(err.Error(), "web-1, web-2") {
		t.Errorf("machines that do not answer: %v", err)
	}
}

func TestConsoleIsValidAndBounded(t *testing.T) {
	c := newCluster(t)
	c.commit(pool("web", 1))
	c.machine("web", 1)
	resp, err := provisionrv1.NewMachineServiceClient(c.as(operator)).GetConsole(t.Context(), &provisionrv1.GetConsoleRequest{Name: "web-1"})
	c.ok(err)
	if n := len(resp.Console); n == 0 || n > 2*maxConsole || !utf8.ValidString(resp.Console) || !strings.HasSuffix(resp.Console, "ok ") {
		t.Errorf("%d bytes", n)
	}
}

// A defect in one call is that call's error, also in a goroutine of it, and shows nothing of our insides.
func TestDefectIsOneCallsError(t *testing.T) {
	c := newCluster(t)
	c.commit(pool("web", 1))
	c.running("web", 1)
	c.agents.verify = func(context.Context, string) error { panic("secret") }
	c.agents.exec = func(context.Context, string, func(*provisionrv1.ExecResponse) error) error { panic("secret") }
	conn := c.as(operator)
	_, err := provisionrv1.NewPoolServiceClient(conn).VerifyPool(t.Context(), &provisionrv1.VerifyPoolRequest{Pool: "web"})
	if err = errs.FromRPC(err); !errs.Is(err, errs.Internal) || strings.Contains(err.Error(), "secret") {
		t.Errorf("unary: %v", err)
	}
	stream, err := provisionrv1.NewMachineServiceClient(conn).Exec(t.Context(), &provisionrv1.ExecRequest{Selector: "web-1", Command: []string{"x"}})
	c.ok(err)
	if _, err = stream.Recv(); !errs.Is(errs.FromRPC(err), errs.Internal) {
		t.Errorf("stream: %v", err)
	}
	if code, data := c.request(c.web(nil), http.MethodGet, "/healthz", ""); code != http.StatusOK {
		t.Errorf("afterwards: %d %s", code, data)
	}
}
