// Package consensus replicates the log of requests with Raft (hashicorp/raft) and runs the FSM on it.
//
// Writes may begin at any member: [Node.Propose] batches them on the leader, or forwards them to it, and repeats them at
// the next leader when one is lost; request ids make that safe. An answered write is on the disks of a majority.
//
// Reads come from the local state; [Node.Sync] first brings it up to what the leader had committed when asked, which
// with confirmed leadership is linearizable.
//
// A restore replaces the state of all members at once by one in which they are the members: no crash leaves one that has
// no record, or a history of which nobody can say that it is newer than the one that was left.
//
// The data directory holds the log and the votes (raft-boltdb) and snapshots; docs/adr/0001-raft-log-store.md says why. Each log entry carries a checksum. A log or snapshot that cannot be read whole keeps the member from
// starting, with a remedy, and a disk that is nearly full refuses writes before the votes could not be written any more.
//
// A member that is alone goes on leading, and so reading, while its disk is full. Among others it gives up leading, and
// refuses what it could answer only after following them.
package consensus
