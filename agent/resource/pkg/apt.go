package pkg

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	listsDir  = "/var/lib/apt/lists"
	stampPath = conffile.StateDir + "/apt-updated"
	// settledPath says that a first transaction has ended: the machine may be in service.
	settledPath = conffile.StateDir + "/packages-settled"
)

// aptEnv is the environment of apt and dpkg. DPKG_FRONTEND_LOCKED tells dpkg that we hold its frontend's lock (dpkg(1)).
var aptEnv = []string{"DEBIAN_FRONTEND=noninteractive", "APT_LISTCHANGES_FRONTEND=none", "NEEDRESTART_MODE=l", "UCF_FORCE_CONFFOLD=1", "DPKG_FRONTEND_LOCKED=1"}

// options of every apt-get call.
var options = []string{"-q", "-y", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30"}

// ownLock is for calls that would take the lock that we hold already.
var ownLock = []string{"-o", "Debug::NoLocking=1"}

// forces are dpkg's: configuration files stay as they are.
var forces = []string{"--force-confdef", "--force-confold"}

// apt is the manager of Debian's packages.
type apt struct {
	host   *host.Host
	limits limits
	status status
}

func (a *apt) triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: statusPath}}
}

func (a *apt) matches(want, have string) bool { return want == have }

func (a *apt) read(context.Context) (*installed, error) {
	in, err := a.status.read()
	if err != nil {
		return nil, err
	}
	all := *in
	interrupted, err := a.status.interrupted()
	if err != nil {
		return nil, err
	}
	if interrupted {
		all.troubles = append(all.troubles, "dpkg was interrupted")
	}
	if conffile.Exists(a.host, journalPath) {
		all.troubles = append(all.troubles, "a package transaction was interrupted")
	}
	if leftover(a.host) {
		all.leftovers = append(all.leftovers, policyPath+": left from an interrupted transaction, services cannot start")
	}
	return &all, nil
}

// begin takes dpkg's lock, keeps services down, and puts off man-db's index.
func (a *apt) begin(ctx context.Context) (func() error, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return nil, err
	}
	if err := allowServices(a.host); err != nil {
		return nil, errors.Join(err, unlock())
	}
	allow, err := deny(a.host)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	putOff, err := a.putOffIndex()
	if err != nil {
		return nil, errors.Join(err, allow(), unlock())
	}
	return func() error { return errors.Join(putOff(ctx), allow(), unlock()) }, nil
}

// transact fetches the lists if needed, and installs; if the lists do not know what is wanted, it fetches them and tries again.
func (a *apt) transact(ctx context.Context, c *change) error {
	if err := a.freshen(ctx); err != nil {
		return err
	}
	err := a.change(ctx, c)
	if !errs.Is(err, errs.NotFound) {
		return err
	}
	if err := a.update(ctx); err != nil {
		return err
	}
	return a.change(ctx, c)
}

// freshen fetches the lists where they are older than the sources.
func (a *apt) freshen(ctx context.Context) error {
	stale, err := a.listsStale()
	if err != nil || !stale {
		return err
	}
	return a.update(ctx)
}

func (a *apt) update(ctx context.Context) error {
	args := append(slices.Clone(options), "-o", "APT::Update::Error-Mode=any", "update")
	if err := a.run(ctx, "fetch the package lists", host.Command{Path: "apt-get", Args: args, Timeout: a.limits.update}); err != nil {
		return err
	}
	return conffile.Apply(a.host, &conffile.File{Path: stampPath, Content: []byte("apt-get update succeeded when this file was written\n")})
}

// change carries out one transaction, under a journal.
func (a *apt) change(ctx context.Context, c *change) error {
	var adds []*stanza
	if len(c.remove) == 0 {
		var err error
		if adds, err = a.additions(ctx, c.install); err != nil {
			return err
		}
	}
	var before []converge.SavedFile
	if len(adds) > 0 && a.mayLeaveUnsynced() {
		before = a.saveDatabase()
	}
	if err := a.openJournal(c.install, adds, before); err != nil {
		return err
	}
	err := a.add(ctx, c.install, adds, len(before) > 0)
	if len(adds) == 0 || err != nil && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Exhausted) {
		// What dpkg refused apt may know how to do. It syncs, and may do more than the journal knows a way back from.
		if len(before) > 0 {
			if err := errors.Join(a.sync(), a.openJournal(c.install, adds, nil)); err != nil {
				return err
			}
		}
		err = a.install(ctx, c)
	}
	// Whatever became of it, what was written is made durable: a journal would only say what dpkg's own state says.
	if err := errors.Join(err, a.closeJournal()); err != nil {
		return err
	}
	return conffile.Apply(a.host, &conffile.File{Path: settledPath, Content: []byte("the first package transaction ended when this file was written\n")})
}

// install leaves the transaction to apt-get.
func (a *apt) install(ctx context.Context, c *change) error {
	args := append(slices.Clone(options), ownLock...)
	args = append(args, "--no-install-recommends", "--allow-downgrades", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
	if !conffile.Exists(a.host, settledPath) {
		args = append(args, "-o", "Dpkg::Options::=--force-unsafe-io")
	}
	args = append(args, "install")
	for _, t := range c.install {
		if t.version != "" {
			args = append(args, t.name+"="+t.version)
		} else {
			args = append(args, t.name)
		}
	}
	for _, name := range c.remove {
		args = append(args, name+"-")
	}
	return a.run(ctx, "change packages", host.Command{Path: "apt-get", Args: args, Timeout: a.limits.transaction})
}

// setHolds sets dpkg's selections.
func (a *apt) setHolds(ctx context.Context, hold, release []string) error {
	var lines strings.Builder
	for _, name := range hold {
		lines.WriteString(name + " hold\n")
	}
	for _, name := range release {
		lines.WriteString(name + " install\n")
	}
	return a.run(ctx, "hold packages", host.Command{Path: "dpkg", Args: []string{"--set-selections"}, Stdin: strings.NewReader(lines.String())})
}

// run runs apt-get or dpkg. One that did not end is Unavailable: it is tried again.
func (a *apt) run(ctx context.Context, verb string, c host.Command) error {
	c.Env = aptEnv
	r, err := a.host.Commands.Run(ctx, c)
	if err != nil {
		return errs.New(errs.Unavailable, "cannot %s: %w", verb, err)
	}
	if r.Exit != 0 {
		return classify(verb, r)
	}
	return nil
}
