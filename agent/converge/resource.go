package converge

import "context"

// Resource is one thing on the machine that is kept as desired.
type Resource interface {
	// Name is KIND/NAME and unique on the machine, as file//etc/motd.
	Name() string
	// Check compares the machine with what is desired. It changes nothing and is cheap.
	// The zero Diff says that all is as desired.
	Check(ctx context.Context) (Diff, error)
	// Apply brings the machine to what is desired. It is safe to repeat. The runner checks again afterwards.
	Apply(ctx context.Context) error
}

// Ordered is implemented by resources that must come after others.
type Ordered interface {
	// After returns names of resources, or kinds (file, package), that come first. Absent ones are ignored.
	After() []string
}

// Diff is what a Check found, for people: at most 4 KiB, secrets redacted.
type Diff struct {
	Text string
}

// Empty reports whether all is as desired.
func (d Diff) Empty() bool { return d.Text == "" }
