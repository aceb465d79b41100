// Package reconcile makes what is wanted true: on the leader alone, level-triggered, one decision at a time.
//
// [Plan] is pure: it looks at one [View] (committed state, what the providers list, which agents are connected) and says
// what to do next. [Loop] gathers the view, executes the actions and proposes what came of them. Nothing is remembered
// that a new leader would miss: what a loop keeps in memory (how long an agent has been silent, that a Terminate
// succeeded) only ever makes it act sooner, never otherwise.
//
// Invariants, each with a test:
//   - Intent first: a machine's record and its complete launch request are committed before the provider is called, and
//     a launch is repeated until its outcome is committed. A crash between any two steps ends in adoption.
//   - A slot has one holder, and at most one heir beside it: a machine that is launched to take over before the holder goes.
//     The name moves in one log entry. Otherwise a replacement is created when the holder is gone, and a machine is gone
//     only when a complete list that began after the last possible launch lacks it.
//   - A further attempt with another choice follows only a definite refusal of the one before, and nothing that shows the
//     machine all the same. What was made twice for all that is pruned to one before it is ready, and that one is recorded.
//   - An error, a partial list or an unreachable owner is unknown, and nothing is done about what is unknown.
//   - What repair and rollout take away together stays within the pool's max_unavailable, what is launched beyond its size
//     within max_surge; machines whose end is announced get an heir at any rate, one at a time at least.
//   - A reboot is committed before the agent is asked for it, and asked for until the deadline; no boot is ended twice, one
//     machine of a pool boots at a time, and one that does not is degraded and not asked again.
//   - A pool's firewall group is right before its first machine is launched, and outlives its last one.
//   - Leadership is verified before every call that changes something at a provider, and every call is bounded by a
//     deadline that began before that verification: no call of a deposed leader acts later than [LaunchTimeout] after
//     the new leader's first decision.
package reconcile
