// Package fsm applies log entries to the state. It is the only writer of the state.
//
// Apply is deterministic: it reads no clock, no randomness and no map in its own order, and does no I/O; time, ids and
// secrets arrive inside the commands. The same log gives the same snapshot bytes on every member.
//
// A request applies whole or not at all, with one exception, which is stated at its place: a second key for a machine
// quarantines the machine and is refused. A request id that was applied before changes nothing and has its first result.
//
// What a member does not understand (an entry that does not decode, an unknown command, a feature level above its own)
// stops it: it reports the error once through Config.Fatal, applies nothing more and takes no more snapshots, so that
// it can be upgraded and start again where it was. Bad commands are refused; they never stop or crash a member.
package fsm
