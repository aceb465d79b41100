// Package e2e tests the real binaries on real machines: it starts servers as a user would, boots machines with the local
// provider, and looks at them from outside.
//
// The tests need root and the packages of tools/prerequisites, and the build tag machine. They fail where something they
// need is missing.
package e2e
