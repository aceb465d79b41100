// Package host has what the providers that run machines on this host share: names, ids, seeds and the kinds of errors. Its
// subpackages have the rest:
//
//	files     files that are written whole, locks, the end of a file
//	process   processes that are recognised for ever
//	cgroup    cgroup2 directories with limits, and the end of all that is in them
//	machines  a directory for each machine, which appears with its launch request
//	network   bridges with masquerading, a package proxy and a time server on their gateways
//	archive   the Debian archive as this host sees it: its sources, a caching proxy, root file systems from it
//	rootfs    recipes of root file systems, built and cached
//	aptcache  the caching proxy itself
//
// Everything that a provider makes on the host carries the provider's scope: the name of its nft table and of its cgroup2
// directory, the alias of its links, and its mark as a holder of the host's settings. Two providers never share a scope.
package host
