// Package machines keeps a directory for each machine of a host's provider.
//
// The directory appears whole, with the launch request in it, before anything else is made for the machine, and goes last:
// whatever has crashed, a machine is listed while something of it may be there.
package machines
