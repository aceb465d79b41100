// Package identity is who the machine is: its key, its certificate, and whom it trusts.
//
// The key is made on the machine and is on disk before it is first used, so that a Join whose answer was lost is repeated
// with the same key. The one-time token comes from the bootstrap file, which cloud-init wrote, and is removed from it once
// a certificate is on disk. Certificate, roots and endpoints are on disk before they are used.
//
// Time: certificates are verified without relying on the machine's clock being right. Join pins the authority's key and
// looks at no time; each answer of a server carries the server's time, from which the correction is kept. Later handshakes
// accept a server whose certificate is valid by the machine's clock, by the corrected one, or by the server time last heard
// carried on by the monotonic clock: a clock that was wrong, and one that was put right since, both work.
package identity
