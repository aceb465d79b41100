// Package ospolicy keeps how the operating system looks after itself: automatic upgrades, SELinux and AppArmor.
//
// Automatic upgrades are unattended-upgrades with apt and dnf-automatic with dnf; the package resource implies those
// packages. They never reboot the machine: servers coordinate that. What SELinux and AppArmor can change at run time is
// changed at once; what takes a boot is written down, and the resource says that a boot is needed. In a machine that shares
// its kernel both are unsupported, as they are the host's.
//
// Of a part of the policy that is no longer asked for, our files go: the system's own settings count again. SELinux stays in
// the mode that it was given.
package ospolicy
