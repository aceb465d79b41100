// Package agenttest is a server for tests of the agent: real gRPC over real mutual TLS on loopback, with an authority of
// its own. It issues certificates as a server does and hands each session to the test, which plays the rest.
package agenttest
