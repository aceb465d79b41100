package ec2test_test

import (
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

// TestBoto drives the server with the vendor's Python client (Debian: python3-boto3), so that the server and our provider
// cannot share a misreading of the API.
func TestBoto(t *testing.T) {
	s := ec2test.Start(t, ec2test.Config{BootTime: time.Second, ShutdownTime: time.Second})
	// These the script provokes.
	s.Expect("AuthFailure", "InvalidParameterCombination")
	server := httptest.NewServer(s)
	defer server.Close()
	c := s.Config()
	command := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/drive.py", server.URL, c.Region, c.AccessKeyID, c.SecretAccessKey)
	command.Env = []string{"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1", "LC_ALL=C.UTF-8"}
	out, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "driven by boto3") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, i := range s.Instances() {
		if i.Alive() {
			t.Errorf("%s is %s", i.ID, i.State)
		}
	}
	if n := s.Calls()["RunInstances"]; n < 8 {
		t.Errorf("%d launches", n)
	}
}
