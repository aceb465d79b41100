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

// Looking is implemented by resources whose Check looks at units of systemd. Those of all that a run checks are asked for at
// once, before its first check.
type Looking interface {
	Units() []string
}

// Ahead asks for units that are looked at in a moment, and forgets those of the call before, as host.Units has it.
type Ahead func(units ...string)

// Triggered is implemented by resources whose drift the kernel or systemd can tell: the runner checks a resource anew within
// a moment of each event. What no event tells is found by the full check.
type Triggered interface {
	Triggers() []Trigger
}

// TriggerKind says where an event comes from.
type TriggerKind string

const (
	// OnFile is a change of a path, or of what a directory holds: content, attributes, presence (inotify(7)).
	OnFile TriggerKind = "file"
	// OnUnit is a change of a systemd unit's state or of its file.
	OnUnit TriggerKind = "unit"
	// OnFirewall is a change of an nftables table, named FAMILY/TABLE.
	OnFirewall TriggerKind = "firewall"
	// OnNetwork is a change of links, addresses or routes (rtnetlink(7)). Its name is empty.
	OnNetwork TriggerKind = "network"
)

// Trigger names something whose change may be drift.
type Trigger struct {
	Kind TriggerKind
	Name string
}

// Guarded is implemented by resources whose change can cut the machine off. A change is confirmed from outside, or undone.
type Guarded interface {
	Resource
	Guard() Guard
	// Undo returns how to get back what is there now. It is called before Apply and changes nothing.
	Undo(ctx context.Context) (Undo, error)
}

// Guard says what confirms a change.
type Guard struct {
	// Fingerprint identifies what is desired: one that was confirmed before may be applied again without asking anybody.
	Fingerprint string
	// Inbound are TCP ports that must be reached from outside after the change, beside the fresh connection to a server.
	Inbound []uint16
}

// Undo brings back what was there before a change. It is kept on disk until the change is confirmed, so that it outlives the
// agent and a boot. Files are put back first, then the commands are run in order, each whatever became of the one before.
type Undo struct {
	Files    []SavedFile `json:"files,omitempty"`
	Commands [][]string  `json:"commands,omitempty"`
}

// SavedFile is a file as it was.
type SavedFile struct {
	Path    string `json:"path"`
	Absent  bool   `json:"absent,omitempty"`
	Content []byte `json:"content,omitempty"`
	// Link is the target of a symbolic link, which the file then was.
	Link string `json:"link,omitempty"`
	Mode uint32 `json:"mode,omitempty"`
	UID  int    `json:"uid,omitempty"`
	GID  int    `json:"gid,omitempty"`
}

// Diff is what a Check found, for people: at most 4 KiB, secrets redacted.
type Diff struct {
	Text string
}

// Empty reports whether all is as desired.
func (d Diff) Empty() bool { return d.Text == "" }
