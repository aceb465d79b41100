// Package resource is the home of the kinds of things that the agent keeps as desired, one package each. It has no code.
//
// Every kind makes its resources by New(state, host), and they come in this order, which they declare themselves:
//
//	hosts, resolver, repository   nothing before them
//	package                       hosts/hostname, resolver, repository
//	user, ntp, firewall           package
//	file                          package, user
//	service                       all of the above
//
// Rules for all: Check has no side effect, runs no program and is cheap; Apply is safe to repeat and to kill at any point;
// what must be told of a change (a service, a daemon) is noted on disk before the change, so that a crash loses no reload;
// a diff never shows what not everybody on the machine may read. Kinds do not know each other: what they share is in the
// packages below internal.
package resource
