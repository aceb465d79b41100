// Package fleet knows which member has which agent's session, and reaches agents through it.
//
// It is soft state: each member asks the others every second for what changed. A member that cannot be asked makes the
// picture incomplete, which its readers must not take for silence of that member's agents.
package fleet
