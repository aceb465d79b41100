// Package conffile keeps regular files as desired: content, permission bits and owner, or their absence.
//
// Invariants: a file is only written when it differs; a reader finds the old content or the new, never a part; a path is
// resolved below the host's root like in a chroot, and symbolic links within it are followed only where they belong to the
// agent's own user, so that no other user of the machine can lead the agent astray. A symbolic link in a file's own place
// is replaced.
//
// Checking is cheap: a file whose inode, size and times are those of the last comparison is taken as unchanged, and all are
// compared by content again after [FullEvery], because size and times can lie.
package conffile
