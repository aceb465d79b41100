// Package cli is the command line of Provisionr as a client: every command but `server` and `dev`.
//
// A command is a constructor, its flags and a run function, one file each. Commands talk to the gRPC API only, through
// the context that is chosen, and take their input and output from Streams: nothing here reads os.Stdin or writes
// os.Stdout by itself. Objects go to the output, talk goes to the error stream, so that -o json can be piped.
//
// Errors read "provisionr: cannot ..." and, where there is one, "hint: ..."; faults of manifests read
// "FILE:LINE:COLUMN: ..." like those of a compiler. The exit code is 0, or 1 for errors and failed proofs, 2 for a plan
// with changes, 130 after Ctrl-C; exec and ssh pass the remote one on.
package cli
