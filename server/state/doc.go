// Package state is what the cluster knows: tables of immutable rows in memory, read through snapshots.
//
// Only the FSM writes, one transaction for each request of a log entry; what a whole entry changed becomes visible at
// once, by [Store.Publish]. A [Snapshot] never changes and costs nothing to take. Rows are shared between all
// snapshots: nobody may change what a snapshot returns.
//
// To follow changes, take the channel of [Store.Watch] first, then the snapshot: a change between the two closes the
// channel, so none is missed.
//
// Names within a zone (machine names, pool names, aliases, static records, name servers) are one registry, which is derived
// from the other tables and not part of a stored snapshot. A zone's static records are packed, see [Records]: reads of zones
// leave them out unless they say otherwise. History is bounded: see [MaxEvents] and [MaxApplied].
package state
