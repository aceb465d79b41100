package aws

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// credentials gives the default chain credentials of nobody, and keeps it from looking anywhere else.
func credentials(t *testing.T) {
	for key, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(key, value)
	}
}

// wire is an HTTP client that keeps what is sent and answers with what answer returns.
type wire struct {
	sent   []url.Values
	answer func(url.Values) (int, string)
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	w.sent = append(w.sent, form)
	if w.answer == nil {
		return nil, errors.New("no answer")
	}
	status, text := w.answer(form)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"text/xml"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (w *wire) provider(t *testing.T) *Provider {
	credentials(t)
	return newTestProvider(t, func(c *Config) { c.HTTP = &http.Client{Transport: w} })
}

func fullRequest() *provisionrv1.LaunchRequest {
	return &provisionrv1.LaunchRequest{
		MachineId: "m-aaaabbbbccccdddd", ClusterId: "c1", ClusterName: "test", Attempt: 2, Pool: "zk", Slot: "zk-3",
		Labels: map[string]string{"team": "search", "aws:reserved": "x", "provisionr-machine": "m-forged", "cost/center": "7"},
		Hardware: &provisionrv1.Hardware{
			DiskGib: 20, RootDisk: &provisionrv1.Disk{Type: "gp3", Iops: 4000, ThroughputMibps: 250, Encrypted: true},
			Disks: []*provisionrv1.Disk{{SizeGib: 100, Keep: true}, {SizeGib: 50, Type: "io2", Iops: 1000}},
		},
		Placement: &provisionrv1.Placement{Group: "tight", PublicAddress: true, Ipv6: true, KeyPair: "ops", Identity: "machines"},
		Choice: &provisionrv1.Choice{
			Image: "ami-1", Type: "m7i.large", Zone: "eu-central-1a", Network: "vpc-1", Subnet: "subnet-1", Groups: []string{"sg-1"},
			Spot: true, MaxPrice: "0.045", RootDevice: "/dev/xvda", Extra: map[string]string{extraRootGiB: "20"},
		},
	}
}

// TestRequestGolden compares what goes over the wire for a launch that has everything, and for one that has nothing.
func TestRequestGolden(t *testing.T) {
	minimal := &provisionrv1.LaunchRequest{
		MachineId: "m-aaaabbbbccccdddd", ClusterId: "c1", Attempt: 1, Pool: "zk", Slot: "zk-1",
		Choice: &provisionrv1.Choice{Image: "ami-1", Type: "t3.micro", Zone: "eu-central-1a", Subnet: "subnet-1", Groups: []string{"sg-1"}, RootDevice: "/dev/xvda"},
	}
	full := fullRequest()
	full.Attempt = 1 // a further one first looks for what there is
	for name, request := range map[string]*provisionrv1.LaunchRequest{"minimal": minimal, "full": full} {
		w := &wire{}
		p := w.provider(t)
		for range 2 {
			if _, err := p.Launch(t.Context(), provider.LaunchRequest{Request: proto.CloneOf(request), UserData: []byte("#cloud-config\n{}\n")}); provider.KindOf(err) != provider.Unknown {
				t.Errorf("%s: a launch without an answer is %v", name, err)
			}
		}
		if len(w.sent) != 2 || !cmp.Equal(w.sent[0], w.sent[1]) {
			t.Fatalf("%s: the same request was sent as %v", name, w.sent)
		}
		var got []string
		for key, values := range w.sent[0] {
			got = append(got, key+"="+strings.Join(values, ","))
		}
		slices.Sort(got)
		want, err := os.ReadFile("testdata/run-" + name + ".golden")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(strings.TrimSpace(string(want)), strings.Join(got, "\n")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestToken(t *testing.T) {
	r := fullRequest()
	if got := token(r); got != "m-aaaabbbbccccdddd-2" {
		t.Errorf("second attempt: %q", got)
	}
	r.Attempt = 1
	if got := token(r); got != "m-aaaabbbbccccdddd" {
		t.Errorf("first attempt: %q", got)
	}
}

func TestInvalidRequests(t *testing.T) {
	w := &wire{}
	p := w.provider(t)
	many := map[string]string{}
	for i := range tagLimit {
		many["l"+strings.Repeat("x", i)] = ""
	}
	for name, change := range map[string]func(*provider.LaunchRequest){
		"no machine":      func(r *provider.LaunchRequest) { r.Request.MachineId = "" },
		"no choice":       func(r *provider.LaunchRequest) { r.Request.Choice = nil },
		"another cluster": func(r *provider.LaunchRequest) { r.Request.ClusterId = "c2" },
		"user-data":       func(r *provider.LaunchRequest) { r.UserData = bytes.Repeat([]byte("x"), userDataLimit+1) },
		"labels":          func(r *provider.LaunchRequest) { r.Request.Labels = many },
		"disk of no size": func(r *provider.LaunchRequest) { r.Request.Hardware.Disks[0].SizeGib = 0 },
		"no root device":  func(r *provider.LaunchRequest) { r.Request.Choice.RootDevice = "" },
		"root of no size": func(r *provider.LaunchRequest) { r.Request.Choice.Extra[extraRootGiB] = "x" },
		"misspelt volume": func(r *provider.LaunchRequest) { r.Request.Hardware.RootDisk.Type = "gp33" },
	} {
		r := provider.LaunchRequest{Request: fullRequest()}
		change(&r)
		if _, err := p.Launch(t.Context(), r); provider.KindOf(err) != provider.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(w.sent) > 0 {
		t.Errorf("%d calls were made", len(w.sent))
	}
}

func TestDeviceNames(t *testing.T) {
	seen := map[string]bool{}
	for i := range disksLimit {
		name := deviceName(i)
		if seen[name] || name == "/dev/sda" || name > "/dev/xvdbz" {
			t.Errorf("disk %d is %s", i, name)
		}
		seen[name] = true
	}
	if deviceName(0) != "/dev/sdf" || deviceName(10) != "/dev/sdp" || deviceName(11) != "/dev/xvdba" {
		t.Error(deviceName(0), deviceName(10), deviceName(11))
	}
}
