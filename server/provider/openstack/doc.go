// Package openstack launches machines as servers of one project of an OpenStack cloud, through gophercloud.
//
// What is made carries the cluster and the machine where a search can find it, from its creation on:
//
//	server            metadata and tags provisionr-cluster, -machine, -pool, -slot; the pool's labels; named SLOT-MACHINE[-ATTEMPT]
//	port              named pv-MACHINE, described as provisionr-cluster=CLUSTER; tagged like the server
//	floating IP       described as provisionr-cluster=CLUSTER provisionr-machine=MACHINE
//	volume            marked by metadata before its server is deleted: Nova makes it without a mark, and deletes it with the server
//	security group    named provisionr-CLUSTER-POOL, described as provisionr-cluster=CLUSTER
//
// Invariants:
//   - Nova has no idempotency token. Neutron is asked first for a port with the machine's address, which it makes only once;
//     who made it creates the server. A port that is found without a server is taken over by a conditional update, and only
//     when no request of an earlier launch can be under way any more. Duplicates by metadata are all listed, for Prune.
//   - Addresses are assigned by Provisionr (a managed network): the network belongs to the project, and its cidr should be
//     apart from the subnet's allocation pools. Without an address the claim is a hardware address.
//   - A refusal of a launch (no capacity, quota, invalid) leaves nothing, or it is not returned as one. A server that never
//     found a host is deleted again.
//   - A launch that has begun to change something outlives its caller by some seconds: what was sent cannot be unsent.
//   - A launch of a machine and attempt whose server was deleted is refused while Nova remembers it, 24 hours at most.
//   - Absent is what Nova and Neutron both do not have: a server that a list leaves out, as one of a cell that does not
//     answer, is found by its port, and an error then makes the whole list one.
//   - Every call waits for the limiter, in the HTTP transport. Nothing is retried but a call whose token had expired, once.
//   - Credentials are read at the first call, from clouds.yaml and secure.yaml or the OS_ variables.
//
// OpenStack announces neither maintenance nor the end of a server: instances never have a notice. There is no spot capacity.
//
// # Tests
//
// `make test-openstack` runs the conformance suite against a real control plane (keystone, placement, glance, neutron and
// nova from Debian 12's packages, see tools/openstack), as a user who is not an administrator. Nova's fake driver boots
// nothing, and there is no Cinder and no switch, so the following is not covered there:
//
//   - ResolveSpot of the suite: there is no spot capacity to offer.
//   - Pagination of 1,000 machines: the suite lists 60 in pages of 25.
//   - Boot from volume and further disks: requests are compared with the API reference by unit tests alone.
//   - What a guest sees: user-data, config drive, console text, packets through ports, groups and floating IPs.
//
// The suite's lost answers, throttling and server errors are made in the provider's transport; quota, capacity, duplicates and
// leftovers are real.
package openstack
