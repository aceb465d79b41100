// Package boot answers machines that have no identity yet, on the API port below /boot/v1/: the agent's binary,
// beacons by which a boot shows its progress, and for machines that exist already the script that has them join.
//
// But for that script, which only the machine's join token opens, nothing here is secret and nothing is trusted: the
// machine checks the binary by a hash from its user-data, and a beacon only moves a boot stage on the record of the machine
// whose beacon token it shows. Downloads at the same time, beacons per second, and the size of a request are bounded; what is
// above is answered by 503 or 429 and tried again.
package boot
