// Package server is one member of the cluster: the composition root that knows all the parts and nothing of what they do.
//
// A member's data directory holds identity/ (key, certificate, sealing key, who it is), raft/ (log and snapshots) and what
// the providers keep on this host. [New] prepares a member that begins a cluster, joins one, or was in one before;
// [Server.Run] serves until its context ends.
package server
