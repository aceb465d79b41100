// Package programs keeps programs of ours that the servers hand out, by the SHA-256 of their content.
//
// They are at /usr/local/lib/provisionr/NAME-HASH, with the first twelve hex digits of the hash, and complete once they have
// that name: what is fetched so far is in a file ending in .part, which a later attempt goes on with.
package programs
