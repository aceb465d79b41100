// Package module keeps kernel modules: loaded now and at every boot with their options, or kept from being loaded.
//
// What is absent is put where modprobe(8) finds that it must not load it, and is unloaded where nothing uses it; what is in
// use stays until the next boot. Options count from the next time that the module is loaded. Our files of modules that are no
// longer listed are removed; the modules themselves stay loaded. A container has no modules of its own.
package module
