// Package agent is the composition root of the agent: identity, link, cache, convergence, proofs, and the name service of
// the machine.
//
// Data flows one way. A desired state comes from the cache at start, and from the link whenever the servers have a newer
// one; it is on disk before anything is done about it. It becomes a list of resources, which the runner keeps right, and
// feeds the DNS stub. Each finished run, and each change of its outcome, leads to new proofs. What changed in runs and
// proofs goes to the outbox, which the link empties when a server can be reached. No part waits for a server: with all
// of them gone the machine is kept right, proven and resolving all the same.
//
// An idle agent does a full check and a write of its status file a minute, and a set of proofs every five minutes, more
// often only while one of them is not proven.
package agent
