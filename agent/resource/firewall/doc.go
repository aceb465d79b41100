// Package firewall keeps the machine's inbound policy in one nftables table of its own, inet provisionr, and touches no other.
//
// The policy is: drop, but for loopback, established connections, the ICMP that IP needs, DHCP answers, and what the rules
// allow. The port of the deny proof's listener is dropped before any rule is looked at.
//
// Every change replaces the whole table in one transaction (nft -f with the old table deleted in it): at each moment either
// the old policy holds or the new one, and connections that are established stay. Members of pools are elements of named
// sets. nft is only run to change something. A check asks the kernel by netlink for the table's content, without handles
// and counters, and compares its fingerprint with the one taken after the last change, so that any change from outside is
// noticed, in whatever words it was made.
//
// The last policy is also on disk with a unit that loads it before the network comes up: a machine that boots is never open.
package firewall
