// Package spec turns manifests into objects: YAML to proto message, defaults, validation, and back to YAML.
//
// The proto messages are the single source of what a manifest may say: this package walks their descriptors, so a new
// field needs no code here but for rules that no annotation can express. A manifest is refused as a whole, with every
// problem in it (at most 50) as `file:line:column: path: message (hint)`, sorted by position. The same rules run without
// positions on the server, which trusts no client.
//
// The order of work is fixed: YAML syntax, shape and types of each document, the rules annotated on the messages
// (protovalidate), the rules written here, the rules across the objects of the set. A field that failed one step is not
// reported again by a later one.
//
// Everything here is pure: no files, no network, no clock. Input is bounded: 8 MiB, 1000 objects, 200,000 nodes after
// aliases are followed, 64 levels.
package spec

//go:generate go run ./schemagen ../..
