// Package remote lets the leader use a provider that only works on the host of another member: [Server] answers for the
// providers that run here, [Directory] finds a provider here or, through its owner, elsewhere.
//
// An owner that cannot be reached, answers an error of its own or breaks off in mid-list makes every outcome
// provider.Unknown: never an absence.
package remote
