// Package cgroup keeps the processes of a machine in a cgroup2 directory of its own, on pure cgroup2 hosts and hybrid ones,
// so that it has limits and can be ended wholly, whatever its processes did.
package cgroup
