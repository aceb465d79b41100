// Package swap keeps a swap file of the wanted size, or keeps the machine from swapping at all.
//
// The file is made beside its place and gets there when it is whole: a file that is in its place and is no swap file is
// somebody's, and is not touched. It is used through a systemd unit of its own. Where nothing is to be swapped to, every swap
// is taken out of use, and fstab(5)'s lines of swap are commented out; they come back when that is no longer asked for. A swap file of ours that is no
// longer wanted, or wanted elsewhere, is taken out of use and removed. A container has no swap of its own.
package swap
