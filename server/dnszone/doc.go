// Package dnszone derives the DNS zones of the cluster from its state.
//
// What each server answers is a function of one snapshot: two servers at one version answer alike, under the serial of
// the last change of names. A machine's address, its PTR and what its name says of it exist from the claim on; the names that
// machines share - a pool's, its aliases and endpoints, those of roles - hold the ready ones, at most a fixed number of
// them, which is chosen by rank. An address has exactly one PTR: that of the machine that claims it, else that of the first
// static record with it.
//
// Zones are made in two ways, which agree: [Build] makes them whole, and a [Publisher] follows the rows that changes of names
// have written ([state.Store.Changes]) to the names that may be different, and asks the same functions for these names
// only. It builds anew where the zones themselves, networks or servers change, where the state does not remember what has
// changed, and below [state.LevelNames].
//
// A zone that cannot be signed is left out of what a Publisher publishes, and the others go on; where signing takes long they do
// not wait for it.
//
// Serials never go back (RFC 1982): while a restored cluster has not begun its incarnation, what was published stays.
package dnszone
