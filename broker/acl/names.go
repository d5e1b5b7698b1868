package acl

import (
	"strings"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/topic"
)

// The places for names in a filter: %c is the Client Identifier, %u the user
// name, %{x} the claim x.

// hasPlaces tells whether a filter has any.
func hasPlaces(filter string) bool { return strings.Contains(filter, "%") }

// checkPlaces refuses what looks like a place and is none, and filters that no
// name makes valid.
func checkPlaces(filter string) error {
	plain, _ := fill(filter, false, func(string) string { return "x" })
	return topic.ValidateFilter(plain)
}

// filling is what came of fill.
type filling int

const (
	filled  filling = iota
	missing         // the client has no such name: there is no filter for it
	unsafe          // with its name the filter would match more than what is its own
)

// fill puts names into the places of a filter. Mosquitto's files refuse + and #
// only, as it does.
func fill(filter string, mosquitto bool, name func(place string) string) (string, filling) {
	if !hasPlaces(filter) {
		return filter, filled
	}
	bad := "+#/\x00"
	if mosquitto {
		bad = "+#\x00"
	}
	var b strings.Builder
	for {
		before, rest, more := strings.Cut(filter, "%")
		b.WriteString(before)
		if !more {
			return b.String(), filled
		}
		place := ""
		switch {
		case strings.HasPrefix(rest, "c"), strings.HasPrefix(rest, "u"):
			place, filter = rest[:1], rest[1:]
		case strings.HasPrefix(rest, "{") && !mosquitto && strings.Contains(rest, "}"):
			place, filter, _ = strings.Cut(rest[1:], "}")
			place = "{" + place
		default: // a percent sign
			b.WriteByte('%')
			filter = rest
			continue
		}
		n := name(place)
		if n == "" {
			return "", missing
		}
		if strings.ContainsAny(n, bad) || b.Len() == 0 && n[0] == '$' {
			return "", unsafe
		}
		b.WriteString(n)
	}
}

// nameOf are the names of a client.
func nameOf(c *broker.Client) func(string) string {
	return func(place string) string {
		switch place {
		case "c":
			return c.ID
		case "u":
			return c.Identity.Username
		}
		return c.Identity.Claims[place[1:]]
	}
}
