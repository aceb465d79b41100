package api

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// fakeZoneKeys makes keys without cryptography.
type fakeZoneKeys struct{}

func (fakeZoneKeys) List(s *state.Snapshot, origin string) (out []*provisionrv1.ZoneKeyInfo) {
	for k := range s.ZoneKeys() {
		if origin == "" || origin == k.GetOrigin() {
			out = append(out, &provisionrv1.ZoneKeyInfo{Origin: k.GetOrigin(), Tag: k.GetTag(), State: k.GetState()})
		}
	}
	return out
}

func (fakeZoneKeys) Roll(s *state.Snapshot, origin string) (*raftlogv1.Command, error) {
	n := uint32(1)
	for range s.ZoneKeysOf(origin) {
		n++
	}
	in := state.KeyPublished
	if n == 1 {
		in = state.KeyActive
	}
	return putKey(origin, n, in), nil
}

func (fakeZoneKeys) Activate(_ *state.Snapshot, origin string, tag uint32) (*raftlogv1.Command, error) {
	return putKey(origin, tag, state.KeyActive), nil
}

func putKey(origin string, tag uint32, in string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutZoneKey{PutZoneKey: &raftlogv1.PutZoneKey{Key: &provisionrv1.ZoneKey{
		Metadata: &provisionrv1.Metadata{Name: state.ZoneKeyName(origin, tag)}, Origin: origin, Tag: tag, State: in,
		PublicKey: make([]byte, 64), Ciphertext: []byte("hidden"), KeyVersion: 1,
	}}}}
}

func TestZoneKeys(t *testing.T) {
	c := newCluster(t)
	const origin = "provisionr.internal"
	keys := provisionrv1.NewInfraServiceClient(c.as(admin))
	states := func() string {
		t.Helper()
		r, err := provisionrv1.NewInfraServiceClient(c.as(viewer)).ListZoneKeys(t.Context(), &provisionrv1.ListZoneKeysRequest{Origin: origin})
		c.ok(err)
		text := ""
		for _, k := range r.Keys {
			text += k.State + " "
		}
		return text
	}
	for _, id := range []string{"first", "second", "second"} { // a request that is repeated has its first result
		_, err := keys.RollZoneKey(t.Context(), &provisionrv1.RollZoneKeyRequest{Origin: origin, RequestId: id})
		c.ok(err)
	}
	if got := states(); got != "active published " {
		t.Fatalf("keys %s", got)
	}
	if _, err := keys.RollZoneKey(t.Context(), &provisionrv1.RollZoneKeyRequest{Origin: origin}); !errs.Is(errs.FromRPC(err), errs.Conflict) {
		t.Errorf("a second published key: %v", err)
	}
	_, err := keys.ActivateZoneKey(t.Context(), &provisionrv1.ActivateZoneKeyRequest{Origin: origin, Tag: 2})
	c.ok(err)
	if got := states(); got != "retired active " {
		t.Errorf("keys %s", got)
	}
	for _, as := range []provisionrv1.Role{viewer, operator} {
		if _, err := provisionrv1.NewInfraServiceClient(c.as(as)).RollZoneKey(t.Context(), &provisionrv1.RollZoneKeyRequest{Origin: origin}); !errs.Is(errs.FromRPC(err), errs.Denied) {
			t.Errorf("%s rolls a key: %v", as, err)
		}
	}
}

func TestZoneKeysOverREST(t *testing.T) {
	c := newCluster(t)
	c.user("ada", admin)
	web := c.web(c.cert(pki.User, "ada"))
	if status, body := c.request(web, http.MethodPost, "/v1/dns/keys/provisionr.internal:roll", "{}"); status != http.StatusOK {
		t.Fatalf("roll: %d %s", status, body)
	}
	if status, body := c.request(web, http.MethodPost, "/v1/dns/keys/provisionr.internal/1:activate", "{}"); status != http.StatusOK {
		t.Fatalf("activate: %d %s", status, body)
	}
	status, body := c.request(web, http.MethodGet, "/v1/dns/keys", "")
	var r provisionrv1.ListZoneKeysResponse
	c.ok(protojson.Unmarshal(body, &r))
	if status != http.StatusOK || len(r.Keys) != 1 || r.Keys[0].State != state.KeyActive || strings.Contains(string(body), "iphertext") {
		t.Errorf("%d %s", status, body)
	}
	if _, err := tablesOf([]string{"zone-keys"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("watch of zone keys: %v", err)
	}
}

func TestNoZoneKeys(t *testing.T) {
	if _, err := (noZoneKeys{}).Activate(nil, "x", 1); !errs.Is(err, errs.Unsupported) {
		t.Errorf("activate: %v", err)
	}
}

func TestPlanWarnsOfZones(t *testing.T) {
	c := newCluster(t)
	zone := func(spec *provisionrv1.ZoneSpec) *provisionrv1.Object {
		spec.Domain = "lab.example.org"
		return &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
			ApiVersion: "provisionr/v1", Kind: "Zone", Metadata: &provisionrv1.Metadata{Name: "lab"}, Spec: spec,
		}}}
	}
	c.commit(zone(&provisionrv1.ZoneSpec{Dnssec: "presigned"}))
	plan, err := provisionrv1.NewManifestServiceClient(c.as(operator)).Plan(t.Context(), &provisionrv1.PlanRequest{Objects: []*provisionrv1.Object{
		zone(&provisionrv1.ZoneSpec{Transfer: &provisionrv1.ZoneTransfer{Keys: []*provisionrv1.TransferKey{{Name: "ns2", Secret: "later"}}}}),
	}})
	c.ok(err)
	warnings := strings.Join(plan.Changes[0].Warnings, "\n")
	if !strings.Contains(warnings, "not signed any more") || !strings.Contains(warnings, "secret later does not exist yet") {
		t.Errorf("warnings: %s", warnings)
	}
}
