// Package service keeps systemd units running or stopped, and enabled or not.
//
// Services come last: their packages, files, accounts, names, time and firewall are in place before they start. A unit is
// restarted when the content of a file that it names changed since the agent started it; the contents' hashes are kept on
// disk, so that a change made while the agent or the machine was down counts as well, and so does a file that was
// written over with the same content not. A unit that does not come up fails with the last lines of its journal.
//
// SysV init scripts are units like others here; package host knows how they are enabled.
package service
