package openstack

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func testProvider(t *testing.T) *Provider {
	t.Helper()
	p, err := New(Config{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testRequest() *provisionrv1.LaunchRequest {
	return &provisionrv1.LaunchRequest{
		MachineId: "m-1", Attempt: 1, Pool: "web", Slot: "web-1", Address: "10.0.0.9", Labels: map[string]string{"team/x": "a", keyCluster: "forged"},
		Choice: &provisionrv1.Choice{Image: "img", Type: "flv", Zone: "az1", Network: "net", Subnet: "sub", Groups: []string{"sg"}, Extra: map[string]string{}},
	}
}

// asJSON brings a value and JSON text into one form.
func asJSON(t *testing.T, v any) any {
	t.Helper()
	raw, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(b)
	}
	var out any
	if err := json.Unmarshal([]byte(raw), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPortBody(t *testing.T) {
	p := testProvider(t)
	r := testRequest()
	r.Choice.Extra[extraSubnet6] = "sub6"
	body, err := p.portBody(r).ToPortCreateMap()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"port": {"network_id": "net", "name": "pv-m-1", "description": "provisionr-cluster=c1", "device_owner": "provisionr:launch-0",
		"fixed_ips": [{"subnet_id": "sub", "ip_address": "10.0.0.9"}, {"subnet_id": "sub6"}], "security_groups": ["sg"]}}`
	if diff := cmp.Diff(asJSON(t, want), asJSON(t, body)); diff != "" {
		t.Error(diff)
	}
	r.Address = ""
	if opts := p.portBody(r); opts.MACAddress != hardwareAddress("c1", "m-1") || opts.MACAddress == hardwareAddress("c2", "m-1") {
		t.Errorf("without an address the claim is %q", opts.MACAddress)
	}
	if mac := hardwareAddress("c1", "m-1"); mac[1] != '2' && mac[1] != '6' && mac[1] != 'a' && mac[1] != 'e' {
		t.Errorf("%s is not a locally administered unicast address", mac)
	}
}

func TestServerBody(t *testing.T) {
	p := testProvider(t)
	r := testRequest()
	r.Placement = &provisionrv1.Placement{KeyPair: "key"}
	r.Choice.Extra[extraGroup] = "grp"
	opts, hints := p.serverBody(provider.LaunchRequest{Request: r, UserData: []byte("IyE=")}, "port1", &session{tags: true})
	body, err := opts.ToServerCreateMap()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"server": {"name": "web-1-m-1", "imageRef": "img", "flavorRef": "flv", "availability_zone": "az1", "config_drive": true, "key_name": "key",
		"networks": [{"port": "port1"}], "user_data": "SXlFPQ==",
		"metadata": {"team_x": "a", "provisionr-cluster": "c1", "provisionr-machine": "m-1", "provisionr-pool": "web", "provisionr-slot": "web-1", "Name": "web-1"},
		"tags": ["provisionr-cluster=c1", "provisionr-machine=m-1", "provisionr-pool=web", "provisionr-slot=web-1"]}}`
	if diff := cmp.Diff(asJSON(t, want), asJSON(t, body)); diff != "" {
		t.Error(diff)
	}
	hint, err := hints.ToSchedulerHintsMap()
	if err != nil || hint["group"] == nil && hint["os:scheduler_hints"] == nil {
		t.Logf("%v %v", hint, err)
	}
	r.Attempt = 2
	if name := serverName(r); name != "web-1-m-1-2" {
		t.Errorf("the second attempt's server is %s", name)
	}
}

func TestDevices(t *testing.T) {
	choice := func(gib string) *provisionrv1.Choice {
		return &provisionrv1.Choice{Image: "img", Extra: map[string]string{extraRootGib: gib}}
	}
	for _, test := range []struct {
		name     string
		hardware *provisionrv1.Hardware
		choice   *provisionrv1.Choice
		want     []servers.BlockDevice
	}{
		{"the flavor's disk", &provisionrv1.Hardware{DiskGib: 5}, choice(""), nil},
		{"a root volume", &provisionrv1.Hardware{DiskGib: 5, RootDisk: &provisionrv1.Disk{Type: "ssd"}}, choice("5"), []servers.BlockDevice{
			{SourceType: "image", UUID: "img", DestinationType: "volume", DeleteOnTermination: true, VolumeSize: 5, VolumeType: "ssd"},
		}},
		{"a flavor without a disk", nil, choice("20"), []servers.BlockDevice{
			{SourceType: "image", UUID: "img", DestinationType: "volume", DeleteOnTermination: true, VolumeSize: 20},
		}},
		{"a root volume to keep", &provisionrv1.Hardware{RootDisk: &provisionrv1.Disk{Keep: true}}, choice("10"), []servers.BlockDevice{
			{SourceType: "image", UUID: "img", DestinationType: "volume", VolumeSize: 10},
		}},
		{"further disks", &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{SizeGib: 7}, {SizeGib: 8, Keep: true, Type: "hdd"}}}, choice(""), []servers.BlockDevice{
			{SourceType: "image", UUID: "img", DestinationType: "local", DeleteOnTermination: true},
			{SourceType: "blank", DestinationType: "volume", BootIndex: -1, VolumeSize: 7, DeleteOnTermination: true},
			{SourceType: "blank", DestinationType: "volume", BootIndex: -1, VolumeSize: 8, VolumeType: "hdd"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, devices(test.hardware, test.choice, true)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRemaining(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)
	h := http.Header{"Date": {now.Format(http.TimeFormat)}}
	for _, test := range []struct {
		name string
		port ports.Port
		want time.Duration
	}{
		{"claimed now", ports.Port{DeviceOwner: claimed + "3", UpdatedAt: now}, claimWindow},
		{"claimed a while ago", ports.Port{DeviceOwner: claimed + "3", UpdatedAt: now.Add(-20 * time.Second)}, claimWindow - 20*time.Second},
		{"claimed long ago", ports.Port{DeviceOwner: claimed + "3", UpdatedAt: now.Add(-time.Hour)}, 0},
		{"claimed by a clock ahead", ports.Port{DeviceOwner: claimed + "3", UpdatedAt: now.Add(time.Hour)}, claimWindow},
		{"released", ports.Port{UpdatedAt: now}, 0},
		{"of a server that is gone", ports.Port{DeviceID: "s", DeviceOwner: "compute:nova", UpdatedAt: now}, 0},
	} {
		if got := remaining(&test.port, h); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestTag(t *testing.T) {
	if got := tag(keyPool, "web"); got != "provisionr-pool=web" {
		t.Error(got)
	}
	long := string(make([]byte, 63))
	if got := tag(keyPool, long); len(got) > maxTag || got == tag(keyPool, long+"x") {
		t.Errorf("%q", got)
	}
}

func TestStates(t *testing.T) {
	for _, test := range []struct {
		status, task string
		want         provider.State
	}{
		{"BUILD", "scheduling", provider.Starting}, {"ACTIVE", "", provider.Running}, {"SHUTOFF", "", provider.Stopped}, {"ERROR", "", provider.Stopped},
		{"DELETED", "", provider.Gone}, {"ACTIVE", "deleting", provider.Stopped}, {"UNKNOWN", "", provider.Running}, {"REBOOT", "rebooting", provider.Running},
	} {
		if got := stateOf(&servers.Server{Status: test.status, TaskState: test.task}); got != test.want {
			t.Errorf("%s %s is %s, want %s", test.status, test.task, got, test.want)
		}
	}
}

func TestInstanceAddresses(t *testing.T) {
	server := &servers.Server{ID: "s", Status: "ACTIVE", Addresses: map[string]any{"net": []any{
		map[string]any{"addr": "198.51.100.7", "OS-EXT-IPS:type": "floating"},
		map[string]any{"addr": "2001:db8::5", "OS-EXT-IPS:type": "fixed"},
		map[string]any{"addr": "10.0.0.5", "OS-EXT-IPS:type": "fixed"},
	}}}
	if i := instance("m", server, nil); i.Address.String() != "10.0.0.5" || i.Address6.String() != "2001:db8::5" {
		t.Errorf("%+v", i)
	}
	if i := instance("m", server, &ports.Port{FixedIPs: []ports.IP{{IPAddress: "2001:db8::6"}}}); i.Address.String() != "2001:db8::6" || i.Address6.IsValid() {
		t.Errorf("%+v", i)
	}
}
