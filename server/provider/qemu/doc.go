// Package qemu runs virtual machines on this host: QEMU processes with disks that are overlays on a base image, cloud-init
// seeded by a NoCloud disc, on a private bridge with a caching apt proxy and a time server on its gateway.
//
// Everything that is made carries the provider's scope (package host): the nft table, the cgroup2 directories, the bridges
// and taps by their alias. The rest is below DataDir:
//
//	networks/NAME.json       a network that was ensured, written before its bridge is made
//	machines/ID/request.json the launch request, committed before anything runs; the directory appears with it
//	machines/ID/disk.qcow2   the root disk, an overlay on the base image; disk-N.qcow2 are further ones
//	machines/ID/seed.iso     cloud-init's seed, with the one-time token
//	machines/ID/vm.json      pid, start time and boot id of QEMU, written before the machine's first instruction
//	machines/ID/qmp.sock     QEMU's control socket
//	machines/ID/console.log  the serial console, bounded
//	gone/                    ids of terminated machines, which no late launch makes again
//	locks/                   one lock per machine, shared by all processes on this DataDir
//
// Invariants:
//   - A machine is a directory in machines/: launched once per id, listed while the directory exists, whatever has crashed.
//   - A machine's first instruction runs after vm.json is on disk. Before that it can be made anew; after that never: it
//     runs, or it is Stopped until it is terminated. So no token is ever used twice by our doing, and disks need no barriers.
//   - A machine is alive if the very process of vm.json is, in the machine's own cgroup: a pid that was given to another
//     program counts for nothing. Terminate kills the cgroup, never a pid.
//   - QEMU needs no process of the server, and its cgroup is not below the server's. Another Provider on the same DataDir
//     adopts it by reading the directory.
//   - QEMU opens its files as root and then is a user of the machine's own, for ever, who owns nothing on the host.
//   - Terminate and Cleanup remove what is there and succeed when nothing is: they repair every half state.
//
// KVM is used where the processor has it and the distribution's kernel starts with it; all else is emulated (TCG), which
// takes about a minute to boot.
package qemu
