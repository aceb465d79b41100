// Package group keeps the pool's groups of accounts: their presence, number and absence.
//
// The number of a group that exists is not changed, because files carry it: a contradiction is an error. A group that is only
// no longer listed stays. The group with number 0 is never removed.
package group
