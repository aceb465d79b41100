// Package api is what people and programs call: gRPC, REST and the web console on one TLS port.
//
// One handler serves it all. gRPC calls go to a grpc.Server; REST calls are translated by grpc-gateway and then handed
// to the same services within the process (see loopback.go), with the same interceptors around them: there is no second
// way in. Authentication happens once, at the HTTP layer, for both (see package auth).
//
//	/PACKAGE.SERVICE/METHOD   gRPC
//	/v1/...                   REST, described by /openapi.json
//	/boot/...                 what booting machines fetch and say (its own handler)
//	/healthz                  whether this server serves
//	/                         the web console
//
// Reads bring the local state up to the asked consistency first, then answer from one snapshot and say at which version.
// Writes become commands for the log; nothing here changes the state by itself. Rows of the state are shared and never
// changed, nor copied deeply.
//
// Bounds: requests are at most [MaxRequest] bytes; a watch holds no queue, for it compares snapshots, so that a slow
// reader skips states instead of filling memory; there are at most [MaxWatches] of them, and an exec or verify works on
// at most [FanOut] machines at a time.
package api
