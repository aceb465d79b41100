// Package zone turns records into immutable DNS zones and answers queries from them, octets in, octets out.
//
// A [Zone] is built from a [Config], or of another zone by [Zone.With], which costs what changes; neither ever changes
// again. A [Set] is the zones that one server answers for. Both are safe for any number of readers and hold no locks.
// [Parse] and [Set.Answer] do not allocate.
//
// Names are spread over shards by a hash: a shard is a dozen names with their answers, ready to be copied, in one block
// without pointers. So a lookup touches two or three places of memory in a zone of any size, the garbage collector sees
// one object for a dozen names, and versions of a zone share all shards but those that differ. Presigned zones also keep
// their names in canonical order, in chunks that are shared alike.
//
// Invariants:
//
//   - Every answer is authoritative, never recursive (AA=1, RA=0), and repeats the question as it was asked, so the
//     spelling of a name in mixed case comes back unchanged.
//   - A name without data is NXDOMAIN only if nothing lies below it; else it is NODATA. Both carry the SOA (RFC 2308).
//   - A name has at most one PTR: [Build] and [Zone.With] refuse the second. Wildcards and delegations are refused too.
//   - A zone that was changed is the one that would be built of what it then has.
//   - Where a name has several addresses, their order is rotated by the query's id, so that clients which take the first
//     spread out; the set itself depends on nothing but the zone.
//   - An answer never exceeds its bound: what was asked for is whole or left out with TC (RFC 2181 section 9), and
//     additional records are left out silently.
//   - Signatures are added where they are asked for, or not at all; they are made elsewhere.
//
// The package does no I/O and imports no DNS library.
package zone
