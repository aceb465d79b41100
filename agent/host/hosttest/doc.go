// Package hosttest holds in-memory stand-ins for the seams of package host: scripted commands, units without systemd, and
// a host on a temporary directory. They are safe for use by several goroutines.
package hosttest
