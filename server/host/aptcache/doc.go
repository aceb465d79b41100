// Package aptcache is a caching forward proxy for apt: a plain HTTP handler that fetches only from known hosts.
//
// Packages and by-hash index files never change under their name: they are stored for ever, up to a bound of bytes beyond
// which the least recently used go. Every other file, an InRelease for one, is passed through and not stored. Concurrent
// requests for one stored file are one request upstream, whose bytes all of them get while they arrive.
//
// Upstream is trusted to redirect a request for a stored file where it likes; a redirection of any other file goes back to
// the client and is checked like every request.
//
// A stored file is complete: it is written beside its place, compared with the length that upstream announced, and renamed.
// What protects machines from a wrong byte is the archive's signature, which apt checks; the cache checks nothing.
package aptcache
