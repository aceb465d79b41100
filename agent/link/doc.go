// Package link is the agent's connection to the servers: it joins, keeps one session stream, renews the certificate over
// it, and delivers reports.
//
// One loop owns the connection. It tries every endpoint and every address that the endpoint resolves to at that moment;
// after a round without success it waits 0.2 s, doubling up to 60 s, less up to half by chance. Within a session one
// goroutine receives, one sends, and each command and verification has its own; all have ended when the session has.
//
// Bounds: the queue of messages to send has 64 places, and who fills it waits; at most 8 commands, 4 verifications
// and 16 other questions are under way, more are refused; output is sent in pieces of at most 32 KiB. Reports are not queued but merged: see [Outbox].
package link
