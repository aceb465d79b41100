// Package network keeps what the machine's own interface has beside what its provider gave it: MTU, further addresses,
// routes. The own interface is the one that has the machine's address.
//
// A change is made at once, by rtnetlink, and kept over boots by whatever manages the interface, which a pure function over
// facts decides: a drop-in of systemd-networkd (which is also how netplan's files come into effect there), a dispatcher
// script of NetworkManager, or a hook of ifupdown. Where nothing manages it, the agent brings it back when it starts. No manager
// is restarted: none loses a lease or an address for this.
//
// What was added is noted on disk before it is, so that what is taken out of the manifest is removed, and nothing else. Every
// change is guarded: it may cut the machine off, and is undone then.
package network
