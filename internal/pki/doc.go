// Package pki holds what both sides need of certificates: keys, signing requests, identities, TLS configurations and files.
//
// Every party has one ECDSA P-256 key and one certificate whose only meaningful name is a URI,
// spiffe://CLUSTER/KIND/NAME (SPIFFE ID specification, section 2): see [ID]. Host names and addresses in a server's
// certificate serve browsers and curl; Provisionr's own clients check the URI instead, so that addresses may change.
//
// Invariants:
//   - TLS 1.3 only, without lists of ciphers or curves.
//   - A TLS configuration never holds a certificate or a root: it asks for them at each handshake, so that rotation
//     needs no restart, and it verifies resumed sessions as it verifies new ones.
//   - A private key never leaves this package's files except in a *ecdsa.PrivateKey; errors and String methods never show one.
//   - Files are written whole or not at all (temporary file, fsync, rename) and are readable by their owner only.
//
// Certificates are back-dated by [Backdate], so that a clock that is slow by less does not break a connection.
package pki
