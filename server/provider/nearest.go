package provider

import (
	"cmp"
	"slices"
	"strings"
)

// Nearest returns the candidates that a person most likely meant by name, at most n of them, best first: the same name in
// other case, then names that begin alike or contain one another, then those that differ by few characters. What looks
// nothing like it is left out, so the result may be empty. Candidates that score alike stay in the order of their names.
func Nearest(name string, candidates []string, n int) []string {
	if n <= 0 {
		return nil
	}
	type match struct {
		name  string
		score int
	}
	var matches []match
	wanted := strings.ToLower(name)
	for _, candidate := range candidates {
		if score, ok := distance(wanted, strings.ToLower(candidate)); ok {
			matches = append(matches, match{candidate, score})
		}
	}
	slices.SortFunc(matches, func(a, b match) int { return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.name, b.name)) })
	matches = slices.CompactFunc(matches, func(a, b match) bool { return a.name == b.name })
	var names []string
	for _, m := range matches[:min(n, len(matches))] {
		names = append(names, m.name)
	}
	return names
}

// maxNamed bounds the lengths that are compared character by character: names of types, zones and images are shorter.
const maxNamed = 256

// distance is the number of edits from one name to the other, less what they share at their beginning where that is much
// of the shorter one. It is not ok for names that have nothing to do with each other.
func distance(name, candidate string) (int, bool) {
	if name == "" || candidate == "" || len(name) > maxNamed || len(candidate) > maxNamed {
		return 0, false
	}
	d := edits(name, candidate)
	shared := 0
	for shared < min(len(name), len(candidate)) && name[shared] == candidate[shared] {
		shared++
	}
	longer, shorter := max(len(name), len(candidate)), min(len(name), len(candidate))
	switch {
	case d == 0:
		return -longer, true
	case shared == shorter, shorter >= 3 && (strings.Contains(candidate, name) || strings.Contains(name, candidate)):
		return d - shared, true
	case 2*shared >= shorter, 2*d <= longer:
		return d - shared/2, true
	}
	return 0, false
}

// edits is the least number of characters to insert, delete, replace or swap with their neighbour (the optimal string
// alignment distance).
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			same := last[j]
			if a[i] != b[j] {
				same++
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, same)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
