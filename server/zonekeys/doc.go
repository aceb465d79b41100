// Package zonekeys has the life of DNSSEC keys and the keys of zone transfers.
//
// A zone that is to be signed gets a key from the leader, which is active at once. It is exchanged by three steps, two of which
// a person takes, since the parent zone has to know: Roll publishes a new key beside the active one; Activate has it sign, once
// every resolver can know it and the parent has its DS record; the leader removes the one before when no resolver remembers
// anything that it signed (RFC 6781 section 4.1.2, RFC 7583). At each step the zone itself asks its parent for the DS records
// that go with it, by CDS and CDNSKEY records (RFC 7344).
//
// Invariants:
//   - What a server signs with follows from the snapshot alone: all make the same signatures.
//   - A signed zone has exactly one active key at every version; the state's machine keeps it so.
//   - Private keys are sealed in the state, the log and snapshots. In plain they are in the memory of servers only, and in no
//     error and no log.
//   - Signing times move on the leader's clock only, and no key of a signed zone is removed but a retired one.
package zonekeys
