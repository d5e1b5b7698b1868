package config

import "fmt"

func unknown(where, name, nearest string) error {
	return fmt.Errorf("%s: unknown key %q; the nearest known one is %q", where, name, nearest)
}

// nearestKey is the known key that is fewest edits away.
func nearestKey(name string) string {
	names := make([]string, 0, len(keys)+len(sections))
	for _, k := range keys {
		names = append(names, k.name)
	}
	for _, s := range sections {
		names = append(names, s.name)
	}
	return nearest(name, names)
}

func nearest(name string, known []string) string {
	best, least := "", -1
	for _, k := range known {
		if d := distance(name, k); least < 0 || d < least {
			best, least = k, d
		}
	}
	return best
}

// Nearest is the flag that a mistyped one probably meant.
func Nearest(flag string) string { return nearestKey(flag) }

// distance counts the insertions, deletions and replacements between two
// words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
