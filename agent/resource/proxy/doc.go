// Package proxy keeps how the machine reaches the world where it has no direct way: the HTTP proxy of the package manager
// and, where the network asks for it, of services and logins.
//
// The package manager always uses the network's proxy: apt by a file of apt.conf.d, dnf by an option of dnf.conf, which both
// dnf 4 and dnf 5 read. With proxy_environment services get it from systemd's DefaultEnvironment, logins from
// /etc/environment.d and /etc/profile.d. What is no longer wanted is removed. Running services keep the environment that
// they were started with.
package proxy
