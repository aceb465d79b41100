// Package rtnl reads and changes links, addresses and routes of the machine by rtnetlink(7), without running a program.
//
// Only the main routing table is looked at. Adding what is there and deleting what is not are no errors, so that a change
// may be repeated.
package rtnl
