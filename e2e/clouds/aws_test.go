package clouds

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/aws"
	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
)

// amazon is EC2. A foreign one is reached at an address that is not the vendor's: then the provider trusts less in it.
type amazon struct {
	*ec2test.Server
	foreign bool
}

func newAmazon(t *testing.T, seed uint64) vendor {
	server := ec2test.Start(t, ec2test.Config{
		Seed: seed, Lag: 3 * time.Second, BootTime: 15 * time.Second, ShutdownTime: 30 * time.Second, Throttling: true,
		ShortPages: seed%3 == 0, ReplayTerminated: seed/2%2 == 0,
	})
	return amazon{server, seed%2 == 0}
}

func (a amazon) provider(client *http.Client) (provider.Provider, error) {
	spec := &provisionrv1.AwsProvider{Region: a.Config().Region}
	if a.foreign {
		at := &provisionrv1.Endpoint{Url: "http://aws.test"}
		spec.Ec2, spec.Ssm, spec.Sts = at, at, at
	}
	return aws.New(aws.Config{ClusterID: reconciletest.ClusterID, HTTP: client, Logger: slog.New(slog.DiscardHandler), Spec: spec})
}

func (a amazon) read(r *http.Request, body []byte) question {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return question{action: target, kind: reads}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return question{action: "unreadable", kind: reads}
	}
	q := question{action: form.Get("Action"), kind: changes}
	switch {
	case q.action == "RunInstances":
		q.kind = launches
	case q.action == "TerminateInstances":
		q.kind = ends
		for n := 1; form.Has(fmt.Sprintf("InstanceId.%d", n)); n++ {
			q.ends = append(q.ends, form.Get(fmt.Sprintf("InstanceId.%d", n)))
		}
	case strings.HasPrefix(q.action, "DescribeInstances"), strings.HasPrefix(q.action, "DescribeSecurityGroup"), q.action == "DescribeInstanceStatus",
		q.action == "DescribeVolumes", q.action == "DescribeNetworkInterfaces":
		q.kind = lists
	case strings.HasPrefix(q.action, "Describe"), strings.HasPrefix(q.action, "Get"):
		q.kind = reads
	}
	return q
}

// failed is an answer as of the Amazon EC2 API Reference, "Error codes for the Amazon EC2 API".
func failed(status int, code, message string) answer {
	return text(status, "text/xml;charset=UTF-8", `<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>`+code+`</Code><Message>`+message+
		`</Message></Error></Errors><RequestID>11111111-2222-4333-a444-555555555555</RequestID></Response>`)
}

func (a amazon) throttled(q question, _ *rand.Rand) answer {
	if strings.HasPrefix(q.action, "AmazonSSM") {
		return text(http.StatusBadRequest, "application/x-amz-json-1.1", `{"__type":"ThrottlingException","message":"Rate exceeded"}`)
	}
	return failed(http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded.")
}

func (a amazon) unavailable(q question, dice *rand.Rand) answer {
	switch {
	case dice.IntN(3) == 0, strings.HasPrefix(q.action, "AmazonSSM"):
		return page()
	case dice.IntN(2) == 0:
		return failed(http.StatusInternalServerError, "InternalError", "An internal error has occurred")
	}
	return failed(http.StatusServiceUnavailable, "Unavailable", "The server is overloaded and can't handle the request.")
}

func (a amazon) instances() []instance {
	var all []instance
	for _, i := range a.Instances() {
		if i.State != "terminated" {
			all = append(all, instance{i.ID, i.Tags["provisionr-machine"], i.Tags["provisionr-slot"], i.Alive(), i.State == "running"})
		}
	}
	return all
}

func (a amazon) made() map[string]int {
	all := map[string]int{}
	for _, i := range a.Instances() {
		all[i.Tags["provisionr-machine"]]++
	}
	return all
}

func (a amazon) groups() map[string]bool {
	all := map[string]bool{}
	for _, g := range a.Groups() {
		if g.Tags["provisionr-cluster"] != "" {
			all[g.Tags["provisionr-pool"]] = true
		}
	}
	return all
}

func (a amazon) leftovers() []string {
	exists := map[string]bool{}
	for _, i := range a.instances() {
		exists[i.id] = true
	}
	var all []string
	for _, v := range a.Volumes() {
		if !exists[v.Instance] {
			all = append(all, v.ID)
		}
	}
	for _, i := range a.Interfaces() {
		if !exists[i.Instance] {
			all = append(all, i.ID)
		}
	}
	return all
}

func (a amazon) kill(t failer, i instance) {
	t.Helper()
	if err := a.Fail(i.id); err != nil {
		t.Errorf("cannot kill: %v", err)
	}
}

// ec2Credentials gives the SDK's default chain the credentials of every test server.
func ec2Credentials(t *testing.T) {
	t.Helper()
	server, err := ec2test.New(ec2test.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server.Setenv(t)
}
