package topic

import "strings"

// sharePrefix marks a Shared Subscription. "$share" alone, without the
// separator, is a plain Topic Filter.
const sharePrefix = "$share/"

// ParseShare takes the filter of a SUBSCRIBE or UNSUBSCRIBE apart:
// $share/{ShareName}/{filter} gives (ShareName, filter, true). Any other filter
// comes back whole in rest. A nil error means that rest is a valid Topic Filter
// and share, if shared, a valid Share Name: at least one character, none of
// '/', '+', '#', and followed by a Topic Filter ([MQTT-4.8.2-1],
// [MQTT-4.8.2-2]).
func ParseShare(filter string) (share, rest string, shared bool, err error) {
	rest = filter
	if tail, ok := strings.CutPrefix(filter, sharePrefix); ok {
		shared = true
		share, rest, ok = strings.Cut(tail, separator)
		if !ok || share == "" || rest == "" || strings.ContainsAny(share, "+#") {
			return "", "", true, ErrShareName
		}
		// The filter is checked with the rest, but a Share Name is text too.
		if err := validateText(share); err != nil {
			return "", "", true, err
		}
	}
	if err := ValidateFilter(rest); err != nil {
		return "", "", shared, err
	}
	return share, rest, shared, nil
}
