// Package static has the machines that exist already: bare metal, another tool's, a person's own. It launches and deletes
// nothing; a person runs one line on the machine (`provisionr machine adopt`), and its agent joins as any other.
//
// The machines' records are the truth about what there is, for there is nobody else to ask:
//
//   - A machine exists from the commit of its launch request until its record is terminating: then its agent is refused, by
//     the servers, for ever. What runs on the machine stays as it is: Provisionr lets go of it.
//   - An instance is Starting until its agent has had a session, and Running from then on. That it runs is not known: a
//     silent agent is judged by the pool's safety.silentAfter alone.
//   - A launch never fails for a machine that is to exist, and it is over when it returns: nothing settles.
//
// It cannot produce duplicates, orphans, throttling, quota or capacity errors, notices, firewall groups or consoles, so the
// conformance cases about these have no meaning here; see docs/providers.md.
package static
