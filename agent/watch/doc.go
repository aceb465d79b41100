// Package watch tells when something that a desired state is about changes: files (inotify), units (D-Bus), our nftables table
// and the network (netlink). It costs nothing while nothing happens.
//
// An event only says where to look: what it means is found by a check. A source may tell too much, and it says so itself where
// it may have told too little: after its queue overflowed, and after it was away, all is to be checked. Sources that this
// machine lacks are tried again once a minute; what they would tell is found by the regular full check.
package watch
