package topic

import "strings"

// MatchOne reports whether the Topic Filter matches the Topic Name (MQTT 5
// §4.7). Both must be valid. It is the plain reading of the standard: use it
// for one filter, and as the model that Trie is tested against.
func MatchOne(filter, name string) bool {
	if reserved(name) && (filter[:1] == "+" || filter[:1] == "#") {
		return false
	}
	for {
		want, filterRest, filterMore := strings.Cut(filter, separator)
		have, nameRest, nameMore := strings.Cut(name, separator)
		switch {
		case want == "#":
			return true
		case want != "+" && want != have:
			return false
		case !nameMore:
			// "sport/#" includes the parent level: it matches "sport".
			return !filterMore || filterRest == "#"
		case !filterMore:
			return false
		}
		filter, name = filterRest, nameRest
	}
}

// reserved reports whether wildcards at the start of a filter must not match
// the Topic Name, or its first level ([MQTT-4.7.2-1]).
func reserved(name string) bool { return len(name) > 0 && name[0] == '$' }
