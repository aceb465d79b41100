// Package user keeps the pool's accounts: the account, its groups, home, shell, ssh keys and right to sudo.
//
// The ssh keys of the desired state are the only ones that an account has. Groups are at least those listed: membership that
// packages or people add is left alone, one that the agent itself gave is taken back when it is no longer listed. The number of an account that exists is not changed, because files carry it: a
// contradiction is an error. Another home is made and used; what is in the old one stays there. An account that is only no
// longer listed stays; absent removes it and keeps its home directory. The account with number 0 is never removed.
//
// A right to sudo is a file of its own below /etc/sudoers.d, checked by visudo before it counts, because one bad file there
// locks every administrator out; files of accounts that are no longer listed are removed. A command that an account may run
// stands for itself, letter by letter: no character of it is a pattern.
package user
