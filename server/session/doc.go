// Package session is the agents' door: port 7444, where machines join, renew their certificates and keep one lasting
// stream each, over which they get their desired state and say what became of it.
//
// Desired state is compiled from the cluster's state: a function of one snapshot and the machine's id, alike on every
// member. It travels as hashes; an agent asks for the components that it lacks. What a pool shares is encoded once for
// all its machines.
//
// Agents are asked things over their sessions ([Hub.Ask]), and call for what they need: who reaches them from outside, the
// secrets that their desired state refers to, certificates of their SSH host keys, and programs by hash.
//
// Invariants:
//
//   - A machine has at most one session per member; the newer one ends the older. Two holders of one identity that live
//     side by side are quarantined.
//   - Nothing that an agent says waits without bound, and nothing is acknowledged before it is committed.
//   - A consumer that does not read, within stated bounds of messages and time, is disconnected; it reconnects and begins
//     with the newest state.
//   - Tokens and secrets never appear in errors, events or logs. A machine gets no secret that its desired state does not
//     refer to.
//   - Of a machine only the ports of sshd and of its agent are tried, at the address of its record.
package session
