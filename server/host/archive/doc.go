// Package archive is the Debian archive as this host sees it: the sources in its apt configuration, a caching proxy for
// machines, and the root file systems that are built through the same cache.
package archive
