// Package secrets keeps the values that the machine's desired state refers to, so that it is converged to without a server.
//
// A value is a file that root alone may read, by name and revision. It is fetched when a desired state refers to it for the first
// time, and removed when none does. No value is in an error, a log or a diff.
package secrets
