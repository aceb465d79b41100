// Package zone turns records into immutable DNS zones and answers queries from them, octets in, octets out.
//
// A [Zone] is built once from a [Config] and never changes; a [Set] is the zones that one server answers for. Both are
// safe for any number of readers, hold no locks and, apart from a handful of slices, no pointers: names, tables and
// answers live in flat arrays, so that a zone of many names costs the garbage collector nothing. [Set.Respond] does not
// allocate.
//
// Invariants:
//
//   - Every answer is authoritative, never recursive (AA=1, RA=0), and repeats the question as it was asked, so the
//     spelling of a name in mixed case comes back unchanged.
//   - A name without data is NXDOMAIN only if nothing lies below it; else it is NODATA. Both carry the SOA (RFC 2308).
//   - An address has at most one PTR: [Build] refuses the second.
//   - Where a name has several addresses, their order is rotated by the query's id, so that clients which take the first
//     spread out; the set itself depends on nothing but the zone.
//
// The package does no I/O and imports no DNS library.
package zone
