// Package repo keeps apt's sources: the pool's repositories in deb822 form, each with its own key, and the proxy.
//
// Every repository is bound to its key by Signed-By, so that one archive's key never vouches for another. Sources and keys
// that an earlier state had made are removed; sources that others made are left alone.
package repo
