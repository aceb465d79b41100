// Package facts finds out what an agent says about its machine, from files alone: it is cheap enough for each full check.
package facts
