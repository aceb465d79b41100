// Package upgrade replaces the agent by another one, which proves itself or is taken back.
//
// Agents are kept by hash beside each other, and what the unit runs is a link to one of them. An upgrade fetches and tries the
// new program, writes down what it does, arms a watchdog of the service manager that runs the old program, moves the link, and
// has the unit started anew. When the new agent has a session it ends the upgrade. Otherwise the watchdog moves the link back
// and starts the old one, whose next report says why. A watchdog does not outlive a boot: after one the old program is started
// first, by a drop-in of the unit, and takes the upgrade back. The link always leads to a whole program: it is replaced in one step.
package upgrade
