// Package contexts reads and writes the file that tells the command line where its cluster is and who it is there, so
// that nothing has to be typed twice.
//
// The file is $PROVISIONR_CONFIG, else provisionr/config.yaml in $XDG_CONFIG_HOME or ~/.config. It is private to its
// user (mode 0600), for it may hold a token. Relative paths in it are relative to its folder. It is always replaced as a
// whole, so that a reader never sees half of it.
package contexts
