// Package tmpl renders the templates of pool files, for the server that validates them and the agent that writes them.
//
// A template is a Go text/template. It sees Data and nothing else: no environment, no files, no clock, so the same
// text and data give the same bytes on every machine and server. A variable or field that does not exist is an error.
//
// Templates are written by operators and run by root, therefore rendering is bounded in every direction: MaxOutput
// bytes of output, a budget of loop turns and of bytes that functions may work on. A template that passes a bound
// fails; nothing is cut off. Errors never tell the value of a secret.
//
// The functions beside the built-in ones are:
//
//	join LIST SEPARATOR   the list's elements with the separator between them; LIST may also be .Pool.Members (their names)
//	upper S, lower S      S in capital or small letters
//	secret "NAME"         the value of the secret; the name is a literal, so that what a template refers to is known unrendered
//	quote S               S in double quotes with Go escapes, which JSON, YAML and most configuration files understand
package tmpl
