// Package firewall keeps the machine's policy in one nftables table of its own, inet provisionr, and touches no other.
//
// The inbound policy is: drop, but for loopback, established connections, the ICMP that IP needs, DHCP answers, and what the
// rules allow. The port of the deny proof's listener is dropped before any rule is looked at; rules that drop come next,
// before all that allow. Where there are egress rules, what neither they nor the machine's own management allow is refused
// with a word. Gateways and relays of a VPN forward for it and for nothing else.
//
// A change of the policy replaces the whole table in one transaction (nft -f with the old table deleted in it): at each moment
// either the old policy holds or the new one, and connections that are established stay. Members of pools are elements of
// named sets: where only they come and go, elements are added and deleted, again in one transaction, and the counters that
// each rule has go on ([Counters]). nft is only run to change something. A check asks the kernel by netlink for the table's
// content, without handles and counters, and compares its fingerprint with the one taken after the last change, so that any
// change from outside is noticed, in whatever words it was made.
//
// The last policy is also on disk with a unit that loads it before the network comes up: a machine that boots is never open.
// It is what a change that was not confirmed is undone to.
package firewall
