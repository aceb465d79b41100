package spec_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

// full is a manifest that uses every field.
func full(t *testing.T) []*provisionrv1.Object {
	t.Helper()
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := spec.Parse("full.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestExamplesAreGood(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := spec.Parse(file, data); err != nil {
			t.Error(err)
		}
	}
}

func TestValues(t *testing.T) {
	pool := full(t)[0].GetPool().GetSpec()
	if pool.Size != 3 || pool.GetMinSize() != 2 || pool.Os.Release != "12" || pool.Hardware.MemoryMib != 2048 {
		t.Errorf("scalars came out wrong: %v", pool)
	}
	if got := pool.Ntp.MaxOffset.AsDuration().String(); got != "50ms" {
		t.Errorf("maxOffset is %s", got)
	}
	if got := full(t)[4].GetUser().Spec.Role; got != provisionrv1.Role_ROLE_OPERATOR {
		t.Errorf("role is %v", got)
	}
	if pool.Services[1].Enabled == nil || *pool.Services[1].Enabled {
		t.Error("enabled: false is not the same as nothing")
	}
	if pool.Variables["note"] != "shared by two" {
		t.Errorf("the alias came out as %q", pool.Variables["note"])
	}
}

// What Manifest writes is what Parse read.
func TestManifestRoundTrip(t *testing.T) {
	objects := full(t)
	objects[0].GetPool().Metadata.Uid = "u"
	objects[0].GetPool().Status = &provisionrv1.PoolStatus{Ready: 1}
	text, err := spec.Manifest(objects...)
	if err != nil {
		t.Fatal(err)
	}
	again, err := spec.Parse("again.yaml", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(full(t), again, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestMarshalShowsOutput(t *testing.T) {
	machine := &provisionrv1.Machine{
		Metadata: &provisionrv1.Metadata{Name: "m-1", Generation: 7, Created: timestamppb.New(timestamppb.New(timestamppb.Now().AsTime()).AsTime())},
		Status:   &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_READY},
	}
	machine.Metadata.Created = &timestamppb.Timestamp{Seconds: 1_800_000_000}
	text, err := spec.Marshal(&provisionrv1.Object{Kind: &provisionrv1.Object_Machine{Machine: machine}})
	if err != nil {
		t.Fatal(err)
	}
	want := "metadata:\n  name: m-1\n  generation: 7\n  created: \"2027-01-15T08:00:00Z\"\nstatus:\n  phase: ready\n"
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	js, err := spec.MarshalJSON(machine)
	if err != nil || !json.Valid(js) || !strings.Contains(string(js), `"phase": "ready"`) {
		t.Errorf("%s %v", js, err)
	}
}

func TestDefaultIsIdempotentAndValid(t *testing.T) {
	minimal := &provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
		Metadata: &provisionrv1.Metadata{Name: "web"},
		Spec: &provisionrv1.PoolSpec{
			Size: 1, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
			Files:    []*provisionrv1.File{{Path: "/etc/a", Content: proto.String("")}, {Path: "/etc/b", Absent: true}},
			Users:    []*provisionrv1.UserAccount{{Name: "ops"}},
			Services: []*provisionrv1.Service{{Name: "nginx"}, {Name: "cron", State: "stopped"}},
			Firewall: &provisionrv1.Firewall{Rules: []*provisionrv1.FirewallRule{{Name: "http", Ports: []string{"80"}, From: []string{"any"}}}},
		},
	}}}
	objects := append(full(t), minimal)
	for _, o := range objects {
		spec.Default(o)
		once := proto.Clone(o)
		spec.Default(o)
		if diff := cmp.Diff(once, proto.Message(o), protocmp.Transform()); diff != "" {
			t.Errorf("a second Default changes %s: %s", spec.Name(o), diff)
		}
		if err := spec.Validate(o); err != nil {
			t.Errorf("defaults make %s invalid: %v", spec.Name(o), err)
		}
	}
	s := minimal.GetPool().Spec
	if s.Provider != "local" || s.Zone != "default" || s.Network != "local" || s.Files[0].Mode != "0644" || s.Files[1].Mode != "" ||
		!s.Services[0].GetEnabled() || s.Services[1].GetEnabled() || s.Firewall.SshFrom[0] != "any" || s.Safety.BootDeadline.AsDuration().Seconds() != 600 {
		t.Errorf("defaults: %v", s)
	}
	if s.MinSize != nil || s.Safety.MaxUnavailable != nil {
		t.Error("a default that follows size was fixed")
	}
	spec.Default(nil) // an object of no kind has no defaults
	spec.Default(&provisionrv1.Object{})
}

func TestValidateTellsObjectAndPath(t *testing.T) {
	o := full(t)[0]
	o.GetPool().Spec.Files[0].Path = "/etc/hosts"
	o.GetPool().Spec.Safety = &provisionrv1.Safety{SilentAfter: durationpb.New(1)}
	err := spec.Validate(o)
	want := "Pool/app: spec.safety.silentAfter: is 1ns, but must be at least 5s and at most 24h\n" +
		"Pool/app: spec.files[0].path: /etc/hosts is written by Provisionr or the system (machine names come from the cluster's DNS; put other names into a Zone)\n" +
		"Pool/app: spec.services[0].restartOn[0]: \"/etc/app/app.conf\" is not a file of this pool (declare it in spec.files)"
	if !errs.Is(err, errs.Invalid) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	for _, bad := range []*provisionrv1.Object{nil, {}, {Kind: &provisionrv1.Object_Pool{}}, {Kind: &provisionrv1.Object_Machine{Machine: &provisionrv1.Machine{}}}} {
		if err := spec.Validate(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("Validate(%v) = %v", bad, err)
		}
	}
}

func TestKnownReferences(t *testing.T) {
	objects := full(t)
	everything := spec.Options{Known: func(string, string) bool { return true }}
	nothing := spec.Options{Known: func(string, string) bool { return false }}
	if err := spec.ValidateAll(objects, everything); err != nil {
		t.Error(err)
	}
	err := spec.ValidateAll(objects, nothing)
	var problems spec.Problems
	if !errors.As(err, &problems) || len(problems) != 1 || !strings.Contains(problems[0].Message, `no Pool "bastion"`) {
		t.Errorf("got %v", err)
	}
}

func TestDiff(t *testing.T) {
	before, after := full(t)[0], full(t)[0]
	if changes := spec.Diff(before, after); len(changes) != 0 {
		t.Errorf("no change gave %v", changes)
	}
	s := after.GetPool().Spec
	s.Size = 5
	s.Packages = append(s.Packages[1:], &provisionrv1.Package{Name: "htop"})
	s.Files[0].Mode = "0600"
	s.Aliases = append(s.Aliases, "www")
	after.GetPool().Metadata.Uid = "not a change that users make"
	var got []string
	for _, c := range spec.Diff(before, after) {
		got = append(got, c.Path+": "+c.Before+" -> "+c.After)
	}
	want := []string{
		"spec.size: 3 -> 5",
		"spec.packages[curl].name: curl -> ",
		"spec.packages[htop].name:  -> htop",
		"spec.files[/etc/app/app.conf].mode: 0640 -> 0600",
		"spec.aliases: application -> application, www",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if changes := spec.Diff(nil, before); len(changes) < 20 || changes[0].Before != "" {
		t.Errorf("creation gave %d changes", len(changes))
	}
}

func TestReferencesAcrossFiles(t *testing.T) {
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = spec.ParseAll([]spec.Source{{Name: "a.yaml", Data: data}, {Name: "b.yaml", Data: data}}, spec.Options{})
	if err == nil || !strings.Contains(err.Error(), "Pool app is given twice, first at a.yaml:") || !strings.HasPrefix(err.Error(), "b.yaml:") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "testdata/full.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 20_000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := spec.Parse("fuzz.yaml", data)
		if err != nil {
			if objects != nil || !errs.Is(err, errs.Invalid) || err.Error() == "" {
				t.Errorf("objects %v with error %v", objects, err)
			}
			return
		}
		text, err := spec.Manifest(objects...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := spec.Parse("again.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(objects, again, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}
