// Package dnszone derives the DNS zones of the cluster from its state.
//
// What each server answers is a function of one snapshot: two servers at one version answer alike, under the serial of
// the last change of names. A machine's address and its PTR exist from the claim on; the aliases of its pool hold it only
// while it is ready. An address has exactly one PTR: that of the machine that claims it, else that of the first static
// record with it.
package dnszone
