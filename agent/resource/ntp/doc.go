// Package ntp keeps time by chrony: its sources, and its service enabled and running.
//
// Where servers are given they are the only sources: the pool, server and makestep lines of the distribution's own
// configuration are commented out with a mark, and come back when no servers are given. Sources are asked quickly at first
// (iburst) and then every 16 to 64 s, and the clock is stepped in the first updates only, so that programs that run already
// never see it jump.
//
// A container may not set the clock of its host. There systemd would skip chrony; a drop-in lifts the condition and runs
// chronyd -x, which observes and does not set.
package ntp
