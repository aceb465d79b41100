// Package resolver makes the machine ask the agent's loopback stub for the cluster's zones, forward and reverse, and leaves
// every other name to the servers that it asked before.
//
// Which mechanism a machine uses is decided by a pure function over facts:
//
//   - systemd-resolved: a drop-in routes the zones to the stub. Where programs go around resolved to its upstreams
//     (resolv.conf linked to resolved's list of them), the link is set to resolved's own stub, as else the route has no effect.
//   - resolvconf, Debian's or openresolv: the stub is put first in the administrator's part of its configuration, which else
//     stays as it is.
//   - NetworkManager: it is told to leave resolv.conf alone, which then is a plain file.
//   - anything else: /etc/resolv.conf is a plain file that names the agent's stub.
//
// The upstreams of before are recorded in [UpstreamsPath], one address a line: the stub forwards to them whatever is not the
// cluster's. An empty list is never recorded over a good one, and the stub itself never is an upstream.
package resolver
