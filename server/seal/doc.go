// Package seal keeps the cluster's secrets unreadable outside its members.
//
// Secrets in the state (signing keys, the key of join tokens) are encrypted with the cluster's data key, AES-256-GCM
// with a random nonce. The data key itself is in the state once per member, wrapped by HPKE (RFC 9180, base mode,
// DHKEM X25519 with HKDF-SHA256, AES-256-GCM) for that member's sealing key, which never leaves the member's disk.
// So a snapshot, a log or a backup of the state is of no use without one member's sealing key.
//
// What is wrapped is a [Ring]: the newest data key, which encrypts, and while a rotation is not complete also those
// before it, which still decrypt. A rotation is thus safe to interrupt between any two of its commands.
//
// A snapshot has the data key of its time, wrapped for the members of its time. After it was restored one of those wraps it for
// the others, or exchanges it where a member had it that is none any more.
//
// Invariants:
//   - Every ciphertext names the version of its data key and is bound to its purpose: it cannot be moved to another place in the state.
//   - Errors and String methods never show key material.
package seal
