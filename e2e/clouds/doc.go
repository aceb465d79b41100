// Package clouds runs pools through their lives at faulty clouds: the real control loop, state machine and providers with
// the vendors' real SDKs, against the strict test servers of EC2 and Compute Engine, with a proxy in between that breaks
// calls by a seed, while servers crash and leaders are deposed.
//
// The proxy cuts connections before and after a call has acted, answers 503 or as the vendor spells a throttle before and
// after, is slow, cuts answers off, answers lists of a minute ago, and holds calls back until another leader has been at
// work. Whatever it does, this holds in every run:
//
//   - When a pool is at rest, its machines in the cloud are its machines in the state, and no others; when it is deleted,
//     nothing is left in the cloud: no instance, volume, interface, disk or group.
//   - No machine is ever made twice, and no slot ever has two machines that live.
//   - Nothing that lives is terminated but what the state wants to be gone at that moment.
//
// Time is virtual, and all connections are in memory. A run depends on its seed alone, but for the order in which the
// scheduler runs what happens at the same time. One run alone:
//
//	go test ./e2e/clouds -run 'TestRuns/aws' -v -args -first 17 -runs 1
//
// tools/fault-runs does the thousands.
package clouds
