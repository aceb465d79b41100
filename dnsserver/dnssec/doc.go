// Package dnssec signs zones with ECDSA P-256 and SHA-256 (RFC 4033 to 4035, RFC 6605), in one of two ways.
//
// A [Signer] signs a zone before it is served or transferred: it turns the plain changes of a zone into changes that
// carry RRSIG records and the NSEC chain. An [Online] signs answers while they are asked for, and denies names with
// compact denial of existence (RFC 9824), so that nobody learns the names of the zone by walking it.
//
// Invariants:
//
//   - Signatures are deterministic (RFC 6979), and a [Signer] looks at no clock: the same zone, keys and signing time
//     make the same octets on every server, and changes signed one after another the same as all of them at once.
//   - Signing a change costs the names that changed and their neighbours in the chain, not the zone. The whole zone is
//     signed anew only with other keys, or when the signing time left the window that the zone was signed in.
//   - What a signature says about its validity depends on the owner's name and the signing time alone. Names take turns,
//     so that a signing time that moves every [Tick] replaces a small, equal share of all signatures each time; those of
//     the SOA and of the keys are replaced by each.
//   - Every key of a zone is in its DNSKEY set and signs that set; only the active one signs anything else. So a
//     resolver that knows any of the keys by a DS record trusts all of them: see [Key] and [Timing] for rollovers.
//   - CDS and CDNSKEY records (RFC 7344, RFC 8078) ask the parent for the DS records of all keys but retired ones. Every key
//     signs them, as it does the DNSKEY set.
//   - Private keys are in no error, no log and no string.
//
// Zones here have no delegations, no wildcards and no names with escapes.
package dnssec
