// Package confirm makes changes that can cut a machine off so that it comes back by itself.
//
// A change of a guarded resource is made only while the machine is connected. What can be reached before is found out first;
// how to undo the change is written down, and a watchdog of the service manager is armed, which works where the agent is dead
// or hangs. Then the change is made, and confirmed by a fresh connection to a server, from which the same ports must be
// reached from outside as before. What is not confirmed is undone at once, by the watchdog, or at the agent's next start,
// whichever comes first, and is not tried again for a while. What was confirmed once is repaired without asking anybody.
//
// Whether a change is confirmed is one file on disk that is written at once: a crash between any two steps leaves a change that
// is confirmed, or one that will be undone. Undoing twice does the same as undoing once.
package confirm
