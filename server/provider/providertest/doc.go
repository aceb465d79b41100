// Package providertest is the conformance suite that every provider must pass ([Run]).
//
// The suite sees a provider and, through [Controls], the cloud behind it: room and quota, lost responses, throttling,
// duplicates, leftovers, what was sent. A case whose controls a provider's test cannot give, or that a provider cannot pass,
// must be named in Config.Without with the reason, so that nothing is left out in silence.
//
// [Cloud] is a simulated cloud for tests of what stands on providers.
package providertest
