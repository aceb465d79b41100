// Package ntp keeps time: the sources of the daemon that does, and its service enabled and running.
//
// The daemon is chrony, or systemd-timesyncd where the distribution's image has it and chrony neither is there nor wanted. A
// pure function over facts decides that.
//
// Where servers or pools are given they are the only sources: the pool, server and makestep lines of the distribution's own
// configuration of chrony are commented out with a mark, and come back when none are given. Servers are asked quickly at first
// (iburst) and then every 16 to 64 s, and the clock is stepped in the first updates only, so that programs that run already
// never see it jump.
//
// A container may not set the clock of its host. There systemd would skip chrony; a drop-in lifts the condition and runs
// chronyd -x, which observes and does not set. systemd-timesyncd cannot observe, and does not run there.
package ntp
