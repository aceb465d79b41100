// Package dnsclient asks a DNS server a question, over UDP or TCP, for those on the machine that have to say which server they
// mean.
//
// Messages go in and out as octets: who asks makes the query and reads the answer. An answer is taken only from the server, with
// the id and the question that were sent (RFC 5452); whether the server is right is for the caller to judge, and so is whom to ask
// next, and over TCP when an answer has TC set.
//
// Bounds: one socket and one message of 4 KiB over UDP, 64 KiB over TCP, for each exchange, which ends with its context.
package dnsclient
