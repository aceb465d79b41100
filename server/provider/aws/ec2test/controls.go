package ec2test

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/memnet"
)

// New makes a server. The error is that the vendor's model cannot be read.
func New(config Config) (*Server, error) { return newServer(config) }

// Start makes a server that fails the test at its end if there was any violation.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		for _, v := range s.Violations() {
			tb.Errorf("violation of the EC2 API: %s", v)
		}
	})
	return s
}

// Setenv gives the SDK's default chain the server's credentials and keeps it from looking anywhere else.
func (s *Server) Setenv(tb testing.TB) {
	tb.Helper()
	for key, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s.config.AccessKeyID, "AWS_SECRET_ACCESS_KEY": s.config.SecretAccessKey,
		"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		tb.Setenv(key, value)
	}
}

// Client speaks HTTP to the server in memory, whatever host and port a URL names. It is closed with the test.
func (s *Server) Client(tb testing.TB) *http.Client {
	network := memnet.Serve(s)
	tb.Cleanup(func() {
		if err := network.Close(); err != nil {
			tb.Errorf("cannot close the test server: %v", err)
		}
	})
	return network.Client()
}

// Config returns the server's configuration with its defaults.
func (s *Server) Config() Config { return s.config }

// Inject sets the hook that decides what goes wrong with each call; nil for nothing. It is called one call at a time and
// must not call the server.
func (s *Server) Inject(hook func(Call) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Throttle refuses the next n calls of an action ("" for any) with RequestLimitExceeded.
func (s *Server) Throttle(action string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.throttled[action] = n
}

// Deny refuses an action with UnauthorizedOperation from now on, or no more.
func (s *Server) Deny(action string, denied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[action] = denied
}

// SetCapacity leaves room for n more instances of a type in a zone; either may be "" for all together. A negative n
// is no limit. Spot and on-demand instances share it; see SetSpotCapacity.
func (s *Server) SetCapacity(instanceType, zone string, n int) {
	s.setCapacity(capacityKey{instanceType, zone, false}, n)
}

// SetSpotCapacity leaves room for n more spot instances.
func (s *Server) SetSpotCapacity(instanceType, zone string, n int) {
	s.setCapacity(capacityKey{instanceType, zone, true}, n)
}

// SetQuota sets how many vCPUs may run on demand.
func (s *Server) SetQuota(vcpus int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.VCPUs = vcpus
}

// SetSpotQuota sets how many vCPUs may run as spot instances.
func (s *Server) SetSpotQuota(vcpus int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.SpotVCPUs = vcpus
}

// SetLag changes how old the state may be that a call sees.
func (s *Server) SetLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Lag = lag
}

// Expect says that violations with these codes are part of the test and do not count.
func (s *Server) Expect(codes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, code := range codes {
		s.expected[code] = true
	}
}

// Violations returns what was wrong with requests and answers, in order, at most 1,000, without those that are expected.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Calls counts the calls by action.
func (s *Server) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// Errors counts the answers by error code.
func (s *Server) Errors() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.errors)
}

// Instances returns all instances that ever were, by launch.
func (s *Server) Instances() []Instance { return s.truthInstances() }

// Groups returns the security groups that exist, by id.
func (s *Server) Groups() []Group { return s.truthGroups() }

// Volumes returns the volumes that exist, by id.
func (s *Server) Volumes() []Volume { return s.truthVolumes() }

// Interfaces returns the network interfaces that exist, by id.
func (s *Server) Interfaces() []Interface { return s.truthInterfaces() }

// InterruptSpot has EC2 take a spot instance back at a time. Its request is marked two minutes earlier, or now.
func (s *Server) InterruptSpot(instanceID string, at time.Time) error {
	return s.interruptSpot(instanceID, at)
}

// ScheduleMaintenance announces an event of an instance, as instance-retirement, instance-stop, system-reboot,
// instance-reboot or system-maintenance, for a time. A retired instance terminates then.
func (s *Server) ScheduleMaintenance(instanceID, code string, at time.Time) error {
	return s.scheduleMaintenance(instanceID, code, at)
}

// Fail has the cloud terminate an instance now, as when its host breaks.
func (s *Server) Fail(instanceID string) error { return s.fail(instanceID) }

// SetConsole sets what an instance has written to its console.
func (s *Server) SetConsole(instanceID, text string) error { return s.setConsole(instanceID, text) }

// SetParameter sets a parameter of the parameter store.
func (s *Server) SetParameter(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parameters[name] = value
}

// AddImage adds an image and returns its id.
func (s *Server) AddImage(image Image) string { return s.addImage(image) }

// DeleteDefaultVPC makes the account one without a default VPC; its other VPC (name "other", 10.50.0.0/16) stays.
func (s *Server) DeleteDefaultVPC() { s.deleteDefaultVPC() }
