// Package providertest is the conformance suite that every provider must pass ([Run]) and a provider in memory
// ([Cloud]) for tests of what stands on providers.
package providertest
