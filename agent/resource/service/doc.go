// Package service keeps systemd units: their content or a drop-in, masked or not, running or stopped, and enabled or not.
//
// Services come last: their packages, files, accounts, names, time and firewall are in place before they start. A unit is
// restarted when the content of its own files, or of a file that it names, changed since the agent started it; the contents'
// hashes are kept on disk, so that a change made while the agent or the machine was down counts as well, and so does a file
// that was written over with the same content not. It is restarted as well when its program, or a library that it runs, was
// replaced under it, as by an upgrade of a package. A unit that does not come up fails with the last lines of its journal.
//
// A unit file in /etc/systemd/system that the manifest no longer has is removed if it is ours, which its first line says, and
// so is a drop-in of ours. When a whole service is no longer listed, one that was all ours is stopped first; one of a package
// keeps running as it is, and keeps how it is enabled or masked.
// SysV init scripts are units like others here; package host knows how they are enabled.
package service
