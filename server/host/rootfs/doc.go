// Package rootfs builds and caches root file systems of Debian: what containers share read-only, and what the disks of virtual
// machines are made from.
//
// A root file system is named by the hash of everything that it is made from: the recipe in this package and the host's
// apt sources. It is built in a directory beside its place and renamed when complete and on disk, so what has the name is
// whole. Builds of all processes of a host wait for each other. Nothing is ever changed in a finished one.
package rootfs
