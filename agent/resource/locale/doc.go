// Package locale keeps the machine's locale: LANG in /etc/default/locale or /etc/locale.conf (locale.conf(5)), and the locale
// itself, generated where it is missing.
//
// Which locales there are is read from the directories and the archive that the C library reads, without a program. C, POSIX
// and C.UTF-8 are built in.
package locale
