// Package auth is the one door of the API: it finds out who calls, decides whether they may, and keeps the audit log.
//
// A call passes in two steps. [Door.Handler] authenticates each HTTP request, gRPC and REST alike, before any of its
// body is read, and puts a [Session] into the context. The interceptors then look up the method's required_role, which
// is an option in the .proto files, and compare. What has no session or no role is refused: to forget something closes
// the door.
//
// A caller proves itself by a client certificate (users and members; agents have no business here) or by a token, as
// "Authorization: Bearer TOKEN" or as the password of Basic authentication. A header wins over a certificate, for a
// browser presents certificates unasked. Credentials are checked against the state at each request and again while a
// stream runs, so that a disabled user, a deleted token or a retired authority takes effect at once.
//
// Audit: every refused call, and every call that needs more than the role viewer, is logged once with caller, method
// and outcome. Request bodies, tokens and certificates are never logged.
package auth
