// Package download keeps binaries and archives that are named by URL and SHA-256.
//
// What is fetched lies beside its target until it is verified, so that an interrupted transfer is resumed and the target is
// replaced in one step: a file by rename, a directory by exchange with the newly unpacked one. A directory that we did not
// make is never replaced, unless it is empty, and a file not by a directory. What is no longer listed stays.
//
// An archive is untrusted beyond its hash: names that are absolute or lead out, links that lead out, devices, pipes and
// sockets are refused; set-id bits are dropped; size and number of files are bounded. Archives are tar, plain or compressed
// with gzip, xz or zstd (the last two by the programs of these names), and zip, told apart by their first bytes.
//
// Check is cheap: a note in the agent's state says what was made, with size, times and hash of each file. Attributes are
// compared every time, content only after [conffile.FullEvery], and more rarely the more there is.
package download
