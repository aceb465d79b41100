// Package host is the commands that run on a server's host: `server` and `dev`.
package host
