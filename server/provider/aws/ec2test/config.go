package ec2test

import "time"

// Config of a [Server]. The zero value is a server without lag, limits or faults, whose instances start and end at once.
type Config struct {
	// Seed of all that is random: identifiers, staleness, zones of instances.
	Seed uint64
	// Region. Default: eu-central-1.
	Region string
	// Account number. Default: 123456789012.
	Account string
	// AccessKeyID and SecretAccessKey that requests must be signed with. Default: of the server's own.
	AccessKeyID, SecretAccessKey string
	// Lag bounds how old the state may be that a call sees. Zero: every call sees all earlier ones.
	Lag time.Duration
	// BootTime is how long instances are pending. Zero: the first Describe sees them running.
	BootTime time.Duration
	// ShutdownTime is how long instances are shutting-down. Zero: not at all.
	ShutdownTime time.Duration
	// TerminatedFor is how long terminated instances stay listed. Default: 1 h.
	TerminatedFor time.Duration
	// TokenLife is how long client tokens are remembered. Default: 24 h.
	TokenLife time.Duration
	// VCPUs is the quota of running on-demand vCPUs. Default: no limit that a test meets (100,000).
	VCPUs int
	// SpotVCPUs is the quota of spot vCPUs. Default: as VCPUs.
	SpotVCPUs int
	// ShortPages makes pages hold fewer items than asked for, or none, with a token for more.
	ShortPages bool
	// ReplayTerminated has a client token whose instance is terminated return that instance, as EC2 did until 2025, instead
	// of the error IdempotentInstanceTerminated.
	ReplayTerminated bool
	// Throttling limits calls by the published token buckets of the account.
	Throttling bool
}

func (c Config) withDefaults() Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Region, "eu-central-1")
	def(&c.Account, "123456789012")
	if c.AccessKeyID == "" {
		c.AccessKeyID, c.SecretAccessKey = "AKIAEC2TESTEC2TEST00", "ec2test/not+a+real+secret+access+key0000"
	}
	if c.TerminatedFor == 0 {
		c.TerminatedFor = time.Hour
	}
	if c.TokenLife == 0 {
		c.TokenLife = 24 * time.Hour
	}
	if c.VCPUs == 0 {
		c.VCPUs = 100_000
	}
	if c.SpotVCPUs == 0 {
		c.SpotVCPUs = c.VCPUs
	}
	return c
}
