// Package process recognises a process of this host for ever, also after a restart of the server or of the host: by its
// pid, its start time and the boot that it belongs to.
package process
