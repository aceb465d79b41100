// Package timezone keeps the machine's time zone: the link /etc/localtime (localtime(5)), and on Debian and its like
// /etc/timezone, which says the same to programs that cannot read a link.
//
// The zone must be one that package tzdata has; a link to nothing would silently mean UTC.
package timezone
