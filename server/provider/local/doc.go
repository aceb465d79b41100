// Package local boots real Debian machines on this host: system containers with systemd as PID 1 and real cloud-init, in
// namespaces made by package container, on a private bridge with a caching apt proxy and a time server on its gateway.
//
// Everything that is made carries the cluster's id: a bridge per network and a veth per machine (by name and alias), the nft
// table and the cgroup2 directory provisionr-<cluster id>. The rest is below DataDir:
//
//	networks/NAME.json       a network that was ensured, written before its bridge is made
//	machines/ID/request.json the launch request, committed before anything runs; the directory appears with it
//	machines/ID/init.json    pid, start time and boot id of the machine's init, written before it is let go
//	machines/ID/upper, work  the overlay over the shared root file system
//	machines/ID/console.log  what the helpers said before init took over
//	gone/                    ids of terminated machines, which no late launch makes again
//	locks/                   one lock per machine, shared by all processes on this DataDir
//
// Invariants:
//   - A machine is a directory in machines/: launched once per id, listed while the directory exists, whatever has crashed.
//   - A machine with init.json is never started again: it runs, or it is Stopped until it is terminated.
//   - A machine needs no process of the server, and its cgroup is not below the server's. Another Provider on the same
//     DataDir adopts it by reading the directory.
//   - Terminate and Cleanup remove what is there and succeed when nothing is: they repair every half state.
package local
