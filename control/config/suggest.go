package config

import "strings"

// nearest gives the candidate that a mistyped word most likely meant. It answers only when at most a third of
// the letters differ, since a wild guess misleads more than none.
func nearest(word string, candidates []string) (string, bool) {
	const longestWord = 64
	if len(word) > longestWord {
		return "", false
	}
	folded := fold(word)
	best, bestDistance := "", len(word)+1
	for _, c := range candidates {
		if d := distance(folded, fold(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	limit := max(1, (max(len(folded), len(best))+1)/3)
	if best == "" || bestDistance > limit || bestDistance >= len(best) {
		return "", false
	}
	return best, true
}

// fold removes the differences people do not see: case and the kind of separator.
func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// distance is the optimal string alignment distance in bytes: insertions, deletions, substitutions and swaps
// of neighbours count one each.
func distance(a, b string) int {
	before, previous, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, previous[j]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, previous, row = previous, row, before
	}
	return previous[len(b)]
}
