// Package sshd keeps what sshd allows: a drop-in of its configuration, host certificates, the authorities that it believes of
// users, and which names of theirs may become which account.
//
// The drop-in comes first in sshd_config.d, and is made to count where the main file does not include that directory: of each
// keyword sshd takes the first value (sshd_config(5)). A configuration is only taken up when sshd -t finds nothing wrong with
// it; else the files are put back at once. The change is a guarded one, because a valid configuration may lock people out.
//
// Host certificates are asked of the cluster's authority and remembered, so that a file that was changed is repaired without
// a server. They are asked for again when they are due, and when host keys, names or authorities changed; the old ones stay
// until then. Host keys themselves are never touched. Without the ssh part of a desired state nothing of sshd is.
//
// sshd runs as ssh.service or sshd.service, or is started for connections by a socket, as Ubuntu does.
package sshd
