package auth

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shoalmq/shoal/broker"
)

// claim finds a claim by its name, or by its path through objects, with dots.
func claim(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	head, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	inner, _ := claims[head].(map[string]any)
	return claim(inner, rest)
}

// text is a value that can be written as a word. JSON's numbers are read as
// floating point, where from 2^53 on several have one value: as the names of users
// they would make one of two.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		if math.Abs(v) >= 1<<53 {
			return "", false
		}
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// texts is a list of words, or one; nothing is an empty list.
func texts(v any) ([]string, bool) {
	if v == nil {
		return nil, true
	}
	if s, ok := text(v); ok {
		return []string{s}, true
	}
	list, ok := v.([]any)
	if !ok || len(list) > maxGroups {
		return nil, false
	}
	words := make([]string, len(list))
	for i := range list {
		if words[i], ok = text(list[i]); !ok {
			return nil, false
		}
	}
	return words, true
}

// holds tells whether a claim is want, or a list that contains it.
func holds(v any, want string) bool {
	words, ok := texts(v)
	if !ok {
		return false
	}
	for _, w := range words {
		if w == want {
			return true
		}
	}
	return false
}

// textClaims are the claims that rules may ask for.
func textClaims(claims map[string]any) map[string]string {
	found := make(map[string]string, len(claims))
	for name, v := range claims {
		if s, ok := text(v); ok && len(s) <= maxNameBytes && len(found) < maxClaims {
			found[name] = s
		}
	}
	return found
}

// validNames refuses names that MQTT could not have carried ([MQTT-1.5.4-2]), or
// that are absurdly long.
func validNames(who *broker.Identity) error {
	for _, name := range append([]string{who.Username, who.ClientID}, who.Groups...) {
		switch {
		case len(name) > maxNameBytes:
			return fmt.Errorf("%w: a name is longer than %d bytes", broker.ErrNotAuthorized, maxNameBytes)
		case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
			return errors.Join(broker.ErrNotAuthorized, errors.New("a name is not valid UTF-8 without U+0000"))
		}
	}
	return nil
}
