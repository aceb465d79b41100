// Package sim is a cloud in the memory of this process: the stage for scale and fault tests. It runs nobody's work.
//
// A [Cloud] is an account: an API with token buckets, latency and eventual consistency, room and quotas, machine types at
// prices that move, spot capacity that is taken back, and firewall groups. It breaks as real ones do: calls fail before
// they act or lose their response after, lists are stale, calls come too fast. All that is random comes from its seed, and
// a call's fate depends on nothing but the seed, its kind, its machine and how often that was called before, so that runs
// can be repeated whatever order the scheduler chooses. The zero Cloud is instant, endless and faultless.
//
// A [Provider] reaches it as providers of real clouds do: by single calls, each of which waits for the account's limiter.
// Machines come to life by Config.Boot, as this package knows nothing of agents; without it they are just listed.
package sim
