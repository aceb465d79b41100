// Package file keeps the pool's files: content or rendered template, mode, owner, or absence.
//
// A file is compared by content; package conffile says how that stays cheap and how links are treated. Templates see the
// machine, its pool's members and the pool's variables as internal/tmpl defines them, so that a template depends on facts of
// the desired state only and renders the same until they change. Owners are looked up in the machine's own passwd(5) and
// group(5) at each check, because packages and users that come first may create them.
package file
