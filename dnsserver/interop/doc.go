// Package interop tests the DNS server beside those that others wrote, as Debian has them; there is no code in it.
//
//   - The differential test has our server, NSD and Knot serve the same zones, asks all three the same thousands of
//     questions, well-formed and not, and compares what they answer. Every difference is explained by an entry of a
//     table, which docs/dns-differences.md shows.
//   - All three take the cookies that the others gave.
//   - BIND, NSD and Knot follow our zones as secondaries, and in the end have what we have.
//   - The tools of others check our signed zones, a validating resolver resolves names of them, and what BIND gives to parent
//     zones follows the exchange of a key.
//
// The tests have the build tag machine and need the programs that tools/prerequisites installs: a missing one is a
// failure. Everything listens on free ports of 127.0.0.1, keeps its files in the test's directory, and ends with the test.
package interop
