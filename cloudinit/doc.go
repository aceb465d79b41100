// Package cloudinit renders what a new machine's cloud-init reads: a small #cloud-config stub (user-data), and for
// machines whose seed we write ourselves the NoCloud meta-data and network-config (cloud-init's version 2).
//
// It is pure: the same input gives the same bytes, so that any leader renders what another one launched with. The stub
// only writes files and starts a unit; the bootstrap script that the unit runs reports its progress by beacons, fetches
// the agent from any server that answers, verifies it by SHA-256 and starts it. The unit runs again at each boot until
// the agent is in place, and changes nothing afterwards.
//
// [Adopt] is the same for a machine that exists already: a shell script instead of user-data.
//
// Every value is validated against a narrow alphabet before it is placed between quotes: no value can add a line, a key
// or a command. The join token is written to /etc/provisionr/bootstrap.json alone; beacons carry a token derived from it,
// because they are sent without checking the server's certificate.
package cloudinit
