// Package filesystem makes file systems on disks that have none, and mounts them by their UUID through systemd units.
//
// What is on a disk is never overwritten: it is looked for by an own reader of signatures, without a program, and a file
// system or partition table is only made where the first and last mebibyte are empty. Before it is made, its UUID is noted on
// disk, so that what a crash left unfinished is finished; anything else that is found there is an error that names it. A file
// system of the wanted type and label is taken as it is: a disk that outlived its machine keeps its data.
//
// A file system that is no longer listed is unmounted, after the services that leave with it; what is on its disk stays, and
// is mounted again when it is listed again.
//
// A disk given by number is the n-th that is not one of the system's own, in order of the number at the end of their serials
// where all have one, else in order of the kernel's names. A container has no disks of its own.
package filesystem
