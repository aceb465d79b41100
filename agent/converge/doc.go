// Package converge brings a machine to its desired state and keeps it there.
package converge
