// Package resource is the home of the kinds of things that the agent keeps as desired, one package each. It has no code.
//
// Every kind makes its resources by New(state, host), and they come in this order, which they declare themselves:
//
//	hosts, resolver, repository, proxy, ospolicy   nothing before them, but what names or proxies they need themselves
//	package                                        hosts/hostname, resolver, repository, proxy
//	group, module, timezone, locale, ntp           package
//	user                                           package, groups that there shall be
//	sysctl, filesystem                             package, module
//	swap                                           package, the file system that it is on
//	file                                           package, group, user, file systems and directories on the way to it
//	download                                       resolver, and owners
//	network, firewall, vpn, sshd                   package, and what each declares
//	service                                        all of the above that it may use
//
// Which packages the others need is known to internal/implied, so that they are in the one transaction of packages.
//
// Rules for all: Check has no side effect, runs no program and is cheap; Apply is safe to repeat and to kill at any point;
// what must be told of a change (a service, a daemon) is noted on disk before the change, so that a crash loses no reload;
// a diff never shows what not everybody on the machine may read. Kinds do not know each other: what they share is in the
// packages below internal.
package resource
