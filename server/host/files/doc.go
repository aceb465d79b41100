// Package files writes files that are old or new but never half, locks files between goroutines and processes, and reads
// the end of files that others write.
package files
