// Package file keeps the pool's files: content, rendered template or the value of a secret, with mode and owner; directories,
// symbolic links, and absence.
//
// A file is compared by content at every check, so that a change that keeps its size and times is found as well. Templates see
// the machine, its pool's members, the pool's variables and secrets as internal/tmpl defines them: a template depends on facts
// of the desired state only and renders the same until they change. Values of secrets are asked for when they are first
// needed, and no diff or error ever shows them or what stood in their place. Owners are looked up in the machine's own
// passwd(5) and group(5) at each check, because packages and users that come first may create them.
//
// A directory comes before what is in it, and its parents are made with mode 0755. Nothing that is not a directory is replaced
// by one, and no directory by anything else; an absent directory is removed only if it is empty.
package file
