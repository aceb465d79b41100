// Package gcetest is the Compute Engine v1 REST API in memory, for tests of what calls it.
//
// It is strict: every request and every response is held against the vendor's discovery document (compute-api.json in
// module google.golang.org/api): path, parameters, properties, formats, enumerations, what is required and what is output
// only. What does not conform is refused and recorded as a violation, which fails the test. Beyond the document it follows
// the vendor's reference: operations that go from PENDING over RUNNING to DONE and carry their errors inside, request ids
// that replay their operation, filters, pages, lists that lag, quotas, stock-outs, preemption and maintenance.
//
// Time passes by the clock alone: what happens in between two requests is worked out at the second one. So the server also
// lives in a testing/synctest bubble, where Config.Pipe has it reached through in-memory connections.
package gcetest
