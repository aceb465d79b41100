// Package network makes the networks of a provider's machines on this host: a bridge for each, with the gateway's address,
// masquerading, and on the gateway a package proxy and a time server.
//
// A provider has one nft table, replaced in one transaction. Machines reach each other and the world; the world reaches
// machines only through this host's own connections and answers. The few settings of the host's kernel that machines need
// are raised while any provider on the host holds them, and restored by the last one that lets go.
package network
