// Package pkg keeps the machine's packages: one resource for all of them, because apt is slow to start and one transaction
// is both faster and safer than many.
//
// Check reads dpkg's status file and calls nothing; the file is parsed again only when it changed. Apply runs one
// apt-get transaction that installs, changes versions and removes together. Its rules:
//
//   - The archives' lists are fetched only if they are missing, older than the sources, or could not resolve a package.
//   - Services do not start: a policy-rc.d (Debian's policy for invoke-rc.d) denies it until their files and the firewall are
//     in place, and the service resources start them. Units that run already may be restarted and stopped. The policy is
//     removed afterwards; one that a crash left behind is a difference that the next run repairs.
//   - Configuration files are ours: dpkg keeps the present ones and never asks.
//   - Packages that other resources need (chrony, nftables, sudo) are implied.
//   - man-db's index is not rebuilt, and dpkg does not sync each file (--force-unsafe-io): if the machine loses power in
//     mid-transaction, dpkg --configure -a and the next run repair what dpkg knows, while a file's content may be lost. A
//     machine that dies while it is made is replaced, so speed wins.
//   - A transaction that was interrupted is first ended by dpkg --configure -a.
//   - Everything has a timeout, at which the whole process group is killed, and waits for dpkg's lock for a bounded time.
package pkg
