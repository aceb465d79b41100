package aws

import (
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

func TestSpotNotice(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	made, err := p.Launch(t.Context(), requestFor(t, p, machine, &provisionrv1.Wish{Spot: &provisionrv1.Spot{}}))
	if err != nil {
		t.Fatal(err)
	}
	if got := listed(t, p)[machine]; got.Notice != nil {
		t.Errorf("a notice of nothing: %v", got.Notice)
	}
	at := time.Now().Add(2 * time.Minute)
	if err := c.InterruptSpot(made.ProviderID, at); err != nil {
		t.Fatal(err)
	}
	got := listed(t, p)[machine].Notice
	if got.GetKind() != "spot" || got.GetAt().AsTime().Sub(at).Abs() > 2*time.Second {
		t.Errorf("the notice is %v, want spot at %s", got, at)
	}
	// An error withdraws nothing.
	c.Inject(func(call ec2test.Call) ec2test.Fault {
		if call.Action == "DescribeSpotInstanceRequests" {
			return ec2test.Fault{Before: ec2test.Internal()}
		}
		return ec2test.Fault{}
	})
	if again := listed(t, p)[machine].Notice; again.GetKind() != "spot" {
		t.Errorf("after an error the notice is %v", again)
	}
}

// TestMaintenanceNotice also counts the calls: none about spot requests where there are none, one about events at most.
func TestMaintenanceNotice(t *testing.T) {
	c := startCloud(t, ec2test.Config{})
	p := c.provider(t, "c1", nil)
	made, err := p.Launch(t.Context(), requestFor(t, p, machine, &provisionrv1.Wish{}))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(24 * time.Hour)
	listed(t, c.provider(t, "c1", nil)) // it is running now: events are shown of running instances
	if err := c.ScheduleMaintenance(made.ProviderID, "instance-retirement", at); err != nil {
		t.Fatal(err)
	}
	before := c.Calls()
	for range 3 {
		got := listed(t, p)[machine].Notice
		if got.GetKind() != "maintenance" || got.GetAt().AsTime().Sub(at).Abs() > 2*time.Second {
			t.Errorf("the notice is %v, want maintenance at %s", got, at)
		}
	}
	after := c.Calls()
	if n := after["DescribeInstanceStatus"] - before["DescribeInstanceStatus"]; n != 1 || after["DescribeSpotInstanceRequests"] > 0 {
		t.Errorf("three lists asked %d times for events and %d times for spot requests", n, after["DescribeSpotInstanceRequests"])
	}
}

func TestFirstEvent(t *testing.T) {
	now := time.Now()
	event := func(code types.EventCode, text string, after time.Duration) types.InstanceStatusEvent {
		return types.InstanceStatusEvent{Code: code, Description: awssdk.String(text), NotBefore: awssdk.Time(now.Add(after))}
	}
	got := firstEvent([]types.InstanceStatusEvent{
		event(types.EventCodeSystemReboot, "[Completed] reboot", -time.Hour), event(types.EventCodeInstanceRetirement, "retires", 2*time.Hour),
		event(types.EventCodeSystemMaintenance, "power", time.Hour), event(types.EventCodeInstanceStop, "[Canceled] stop", time.Minute),
	})
	if got.GetMessage() != "system-maintenance: power" || !got.GetAt().AsTime().Equal(now.Add(time.Hour)) {
		t.Errorf("the first event is %v", got)
	}
	if got := firstEvent(nil); got != nil {
		t.Errorf("no events are %v", got)
	}
}
