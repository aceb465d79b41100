// Package repo keeps where packages come from: the pool's repositories, each with its own key, and the network's mirrors of
// the operating system's own archives.
//
// With apt a repository is a deb822 source (sources.list(5)) bound to its key by Signed-By, so that one archive's key never
// vouches for another. With dnf it is a .repo file with gpgcheck and repo_gpgcheck: packages and metadata are signed. A key
// that is named by URL is fetched, and verified by its SHA-256 before it is written. Sources and keys that an earlier state
// had made are removed; sources that others made are left alone, and a repository of the name of one is refused.
//
// Mirrors change the beginnings of URIs in the system's own sources, and nothing of how they are signed. What was there is
// kept in the agent's state, and comes back when the mirrors go. A source that somebody else changed since is theirs, and is
// taken for the original.
package repo
