package pkg

import (
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/internal/errs"
)

// failures are what apt and dpkg say, in order of precedence, and what it means.
var failures = []struct {
	words string
	kind  errs.Kind
	means string
	hint  string
}{
	{"Could not get lock", errs.Unavailable, "another program holds the package manager's lock", "it is tried again; see who holds it with: fuser -v /var/lib/dpkg/lock-frontend"},
	{"was locked by another process", errs.Unavailable, "another program holds the package manager's lock", "it is tried again; see who holds it with: fuser -v /var/lib/dpkg/lock-frontend"},
	{"No space left on device", errs.Exhausted, "the disk is full", "free some space"},
	{"Unable to locate package", errs.NotFound, "a package is in no repository", "correct its name, or add the repository that has it"},
	{"has no installation candidate", errs.NotFound, "a package is in no repository", "correct its name, or add the repository that has it"},
	{"was not found", errs.NotFound, "a version is in no repository", "list the versions with: apt-cache policy PACKAGE"},
	{"404  Not Found", errs.NotFound, "an archive no longer has a file of its lists", "it is tried again with fresh lists"},
	{"NO_PUBKEY", errs.Denied, "an archive is signed with a key that its repository does not name", "correct signedBy of the repository"},
	{"GPG signature verification error", errs.Denied, "an archive is signed with another key than its repository names", "correct signedBy of the repository"},
	{"GPG check FAILED", errs.Denied, "a package is signed with another key than its repository names", "correct signedBy of the repository"},
	{"Error: GPG check", errs.Denied, "a package is not signed with the key that its repository names", "correct signedBy of the repository"},
	{"is not signed", errs.Denied, "an archive is not signed", "use a signed archive"},
	{"Unable to find a match", errs.NotFound, "a package is in no repository", "correct its name or version, or add the repository that has it"},
	{"No match for argument", errs.NotFound, "a package is in no repository", "correct its name or version, or add the repository that has it"},
	{"Temporary failure resolving", errs.Unavailable, "an archive's name does not resolve", "see the machine's dns proofs"},
	{"Could not resolve", errs.Unavailable, "an archive's name does not resolve", "see the machine's dns proofs"},
	{"Could not connect", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Unable to connect", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Connection timed out", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Connection failed", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Hash Sum mismatch", errs.Unavailable, "an archive is in mid-update", "it is tried again"},
	{"File has unexpected size", errs.Unavailable, "an archive is in mid-update", "it is tried again"},
	{"is not valid yet", errs.Unavailable, "the machine's clock is behind the archive's", "see the machine's clock proof"},
	{"Failed to download metadata", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Cannot download", errs.Unavailable, "an archive cannot be reached", "it is tried again"},
	{"Failed to obtain the transaction lock", errs.Unavailable, "another program holds the package manager's lock", "it is tried again"},
	{"conflicting requests", errs.Conflict, "the packages' dependencies contradict each other", "see with: dnf install --assumeno PACKAGE"},
	{"held broken packages", errs.Conflict, "the packages' dependencies contradict each other", "see with: apt-get install -s PACKAGE"},
	{"unmet dependencies", errs.Conflict, "the packages' dependencies contradict each other", "see with: apt-get install -s PACKAGE"},
}

// classify makes an error with a kind of what a failed apt-get or dpkg said.
func classify(verb string, r host.Result) error {
	said := string(r.Stderr) + string(r.Stdout)
	for _, f := range failures {
		if strings.Contains(said, f.words) {
			return errs.New(f.kind, "cannot %s: %s: %s", verb, f.means, command.Tail(r)).WithHint("%s", f.hint)
		}
	}
	return errs.New(errs.Internal, "cannot %s: exit %d: %s", verb, r.Exit, command.Tail(r))
}
