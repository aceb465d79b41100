// Package sysctl keeps kernel parameters: in a file that the system reads at boot, and in the running kernel.
//
// A live value that differs is drift. The kernel tells nobody of such a change, so that the full check finds it. A name may
// have patterns, as net.ipv4.conf.*.rp_filter: each parameter that matches is kept. A parameter that is no longer listed gets
// back the value that it had, unless somebody else changed it since. One that is named itself is left out of patterns. In a container only those of its own network, net.*, are its own.
package sysctl
