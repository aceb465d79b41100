// Package ca is the cluster's certificate authority and the source of its one-time tokens.
//
// The authority has no files: its signing keys are rows of the state, sealed with the cluster's data key (see package
// seal), so that every member can sign and none needs to be special. A row is in one of three slots:
//
//	prepared  trusted by everybody, signs nothing yet
//	active    trusted; the newest active one signs
//	retired   not trusted any more
//
// A rotation is three commands with time between them: [CA.Prepare]; [CA.Activate] when every agent has the new root;
// [CA.Retire] of the old one when every certificate has been renewed. Each may be repeated.
//
// For ssh there is an authority of its own, an Ed25519 key: the active one signs, prepared ones are trusted. It makes host
// certificates for machines and short-lived user certificates; see [CA.SignHost] and [CA.SignUser]. What reads the authorities
// of TLS leaves those of ssh out.
//
// Secrets of users are encrypted with the same data key, each bound to its name and revision.
//
// Tokens are derived, never stored: any member computes the same token for a machine and attempt, and a machine's
// beacon token follows from its join token but does not reveal it. All comparisons are in constant time.
package ca
