// Package hosts keeps the machine's own name: the host name and /etc/hosts.
//
// The machine's fully qualified name stands for its own address, never for a loopback address: Debian's 127.0.1.1 line hides
// faults of DNS and makes servers listen where no peer reaches them. Lines that people add below the marker in /etc/hosts
// are kept, unless they claim the machine's own names or address.
package hosts
