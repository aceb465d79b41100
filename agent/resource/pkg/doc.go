// Package pkg keeps the machine's packages: one resource for all of them, because package managers are slow to start and one
// transaction is both faster and safer than many. Two back ends have one contract: apt and dnf, chosen by the distribution.
//
// Check calls nothing: apt's side reads dpkg's status file, and dnf's reads a copy of what rpm said, which is asked again only
// when rpm's database changed. Apply runs one transaction that installs, changes versions and removes together. Its rules:
//
//   - The archives' lists are fetched only if they are missing, older than the sources, or could not resolve a package.
//   - The lock of the package manager is waited for, for a bounded time; the error names who holds it.
//   - Services do not start: a policy-rc.d (Debian's policy for invoke-rc.d) denies it until their files and the firewall are
//     in place, and the service resources start them. Units that run already may be restarted and stopped. The policy is
//     removed afterwards; one that a crash left behind is a difference that the next run repairs.
//   - Configuration files are ours: dpkg keeps the present ones and never asks.
//   - Packages that other resources need (chrony, nftables, sudo, unattended-upgrades) are implied.
//   - A held package keeps its version: a hold is dpkg's selection, or an exclusion in dnf.conf, which both dnf 4 and dnf 5
//     read. Only holds that we made are taken away again.
//   - A package that must come from a repository has a version that this repository offers. That it does is noted when it is
//     installed, so that Check need not read lists.
//   - Everything has a timeout, at which the whole process group is killed.
//
// Speed: where all that is missing can be added without a choice, a change of what is there, or a Pre-Depends on what comes
// with it, the set is resolved here from the archives' lists, which apt has verified, its .deb files are verified by SHA-256,
// and dpkg gets them in one go; dpkg checks the dependencies again. Anything else is left to apt-get. The hooks of apt.conf
// (dpkg-preconfigure, apt-listchanges) are not run then. man-db's index is not rebuilt in the transaction, but by an idle-class
// timer a moment later.
//
// Durability: until a machine's first transaction has ended it is not in service, and dpkg does not sync each file
// (--force-unsafe-io). Where it only adds packages, nothing that it or a maintainer script does waits for the disk
// ([host.Command], Unsynced). One sync of the file systems comes before success is reported. Later transactions sync as dpkg
// does. A journal on disk says that a transaction is under way, and keeps dpkg's database as it was before one that is not
// synced. One that outlived a boot has the machine's power to blame. A database that it tore is put back as it was, dpkg ends
// what it left undone, and the files that were unpacked are compared with dpkg's checksums; packages where they differ, or
// that were added without a sync, are installed again. Files that were there before are safe all the while: dpkg is left
// unsynced only on file systems that write a file out before they rename it over another.
package pkg
