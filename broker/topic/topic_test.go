package topic

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	for _, c := range []struct {
		name string
		want error
	}{
		{"a", nil},
		{"/", nil},
		{"//", nil},
		{"/a", nil},
		{"a//b", nil},
		{" ", nil},
		{"$SYS/x", nil},
		{"sport/tennis/player1", nil},
		{"\ufeffa", nil}, // [MQTT-1.5.4-3]: not a mark to strip
		{strings.Repeat("x", MaxBytes), nil},
		{strings.Repeat("/", MaxLevels-1), nil},

		{"", ErrEmpty},
		{strings.Repeat("x", MaxBytes+1), ErrTooLong},
		{strings.Repeat("/", MaxLevels), ErrTooManyLevels},
		{"a\x00b", ErrCharacter},
		{"a\xffb", ErrCharacter},
		{"\xed\xa0\x80", ErrCharacter}, // surrogate D800
		{"\xc0\xaf", ErrCharacter},     // overlong '/'
		{"+", ErrWildcard},
		{"#", ErrWildcard},
		{"a/b+", ErrWildcard},
		{"a#/b", ErrWildcard},
	} {
		if err := ValidateName(c.name); !errors.Is(err, c.want) {
			t.Errorf("ValidateName(%.40q) = %v, want %v", c.name, err, c.want)
		}
	}
}

// The examples of MQTT 5 §4.7.1.2 and §4.7.1.3, and their neighbours.
func TestValidateFilter(t *testing.T) {
	for _, c := range []struct {
		filter string
		want   error
	}{
		{"#", nil},
		{"+", nil},
		{"/", nil},
		{"+/+", nil},
		{"/+", nil},
		{"+/", nil},
		{"/#", nil},
		{"sport/tennis/#", nil},
		{"sport/tennis/player1/#", nil},
		{"+/tennis/#", nil},
		{"sport/+/player1", nil},
		{"sport/+", nil},
		{"a//+//#", nil},
		{"$share/g/a/+", nil},

		{"", ErrEmpty},
		{"a\x00", ErrCharacter},
		{"\xff/#", ErrCharacter},
		{strings.Repeat("x", MaxBytes+1), ErrTooLong},
		{strings.Repeat("+/", MaxLevels) + "#", ErrTooManyLevels},
		{"sport/tennis#", ErrMultiLevel},
		{"sport/tennis/#/ranking", ErrMultiLevel},
		{"#/", ErrMultiLevel},
		{"##", ErrMultiLevel},
		{"#a", ErrMultiLevel},
		{"a/+#", ErrMultiLevel},
		{"sport+", ErrSingleLevel},
		{"+sport/a", ErrSingleLevel},
		{"a/++/b", ErrSingleLevel},
	} {
		if err := ValidateFilter(c.filter); !errors.Is(err, c.want) {
			t.Errorf("ValidateFilter(%.40q) = %v, want %v", c.filter, err, c.want)
		}
	}
}

func TestParseShare(t *testing.T) {
	for _, c := range []struct {
		filter, share, rest string
		shared              bool
		want                error
	}{
		{"a/+", "", "a/+", false, nil},
		{"$share", "", "$share", false, nil},
		{"$shared/g/a", "", "$shared/g/a", false, nil},
		{"$SHARE/g/a", "", "$SHARE/g/a", false, nil},
		{"$share/g/a", "g", "a", true, nil},
		{"$share/g/#", "g", "#", true, nil},
		{"$share/g//", "g", "/", true, nil},
		{"$share/g//finance", "g", "/finance", true, nil},
		{"$share/consumer1/sport/tennis/+", "consumer1", "sport/tennis/+", true, nil},
		{"$share/g/$share/h/a", "g", "$share/h/a", true, nil},

		{"$share/", "", "", true, ErrShareName},
		{"$share//a", "", "", true, ErrShareName},
		{"$share/g", "", "", true, ErrShareName},
		{"$share/g/", "", "", true, ErrShareName},
		{"$share/+/a", "", "", true, ErrShareName},
		{"$share/#/a", "", "", true, ErrShareName},
		{"$share/g#/a", "", "", true, ErrShareName},
		{"$share/a+b/a", "", "", true, ErrShareName},
		{"$share/\xff/a", "", "", true, ErrCharacter},
		{"$share/g/a#", "", "", true, ErrMultiLevel},
		{"$share/g/+a", "", "", true, ErrSingleLevel},
		{"", "", "", false, ErrEmpty},
		{"a#", "", "", false, ErrMultiLevel},
	} {
		share, rest, shared, err := ParseShare(c.filter)
		if share != c.share || rest != c.rest || shared != c.shared || !errors.Is(err, c.want) {
			t.Errorf("ParseShare(%q) = %q, %q, %v, %v", c.filter, share, rest, shared, err)
		}
	}
}

// matches are the examples of MQTT 5 §4.7, and their neighbours; both matchers
// must agree with them.
var matches = []struct {
	filter, name string
	want         bool
}{
	{"sport/tennis/player1/#", "sport/tennis/player1", true},
	{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
	{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
	{"sport/tennis/player1/#", "sport/tennis/player10", false},
	{"sport/#", "sport", true},
	{"sport/#", "sport/", true},
	{"sport/#", "sports", false},
	{"#", "sport", true},
	{"#", "/", true},
	{"/#", "/", true},
	{"/#", "a", false},
	{"sport/tennis/+", "sport/tennis/player1", true},
	{"sport/tennis/+", "sport/tennis/player1/ranking", false},
	{"sport/+", "sport", false},
	{"sport/+", "sport/", true},
	{"+/+", "/finance", true},
	{"/+", "/finance", true},
	{"+", "/finance", false},
	{"+", "", true},
	{"+/#", "sport", true},
	{"+/#", "sport/a/b", true},
	{"a/+/#", "a", false},
	{"a/+/c", "a//c", true},
	{"a/+/c", "a/b/d", false},
	{"a//b", "a/b", false},
	{"/a", "a", false},
	{"a/", "a", false},
	{"a", "a/", false},
	{"ACCOUNTS", "Accounts", false},
	{" a", "a", false},

	// [MQTT-4.7.2-1]
	{"#", "$SYS/x", false},
	{"+/monitor/Clients", "$SYS/monitor/Clients", false},
	{"+", "$SYS", false},
	{"+/#", "$SYS", false},
	{"$SYS/#", "$SYS/x", true},
	{"$SYS/#", "$SYS", true},
	{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
	{"a/#", "a/$SYS", true},
	{"a/+", "a/$SYS", true},
	{"/+", "/$SYS", true},
	{"/#", "/$SYS", true},
}

func TestMatchExamples(t *testing.T) {
	for _, c := range matches {
		if got := MatchOne(c.filter, c.name); got != c.want {
			t.Errorf("MatchOne(%q, %q) = %v", c.filter, c.name, got)
		}
		var filters, names Trie[int]
		filters.Set(c.filter, 1)
		n := 0
		filters.Match(c.name, func(int) bool { n++; return true })
		if n != btoi(c.want) {
			t.Errorf("Trie{%q}.Match(%q): %d times", c.filter, c.name, n)
		}
		names.Set(c.name, 1)
		n = 0
		names.MatchNames(c.filter, func(name string, _ int) bool { n++; return name == c.name })
		if n != btoi(c.want) {
			t.Errorf("Trie{%q}.MatchNames(%q): %d times", c.name, c.filter, n)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func FuzzValidate(f *testing.F) {
	for _, c := range matches {
		f.Add(c.filter, c.name)
	}
	f.Add("$share/g/a/#", "a\x00")
	f.Fuzz(func(t *testing.T, filter, name string) {
		nameErr, filterErr := ValidateName(name), ValidateFilter(filter)
		if nameErr == nil && ValidateFilter(name) != nil {
			t.Fatalf("%q is a name but not a filter", name)
		}
		share, rest, shared, err := ParseShare(filter)
		if err == nil {
			if ValidateFilter(rest) != nil || shared && filter != "$share/"+share+"/"+rest || !shared && filter != rest {
				t.Fatalf("ParseShare(%q) = %q, %q, %v", filter, share, rest, shared)
			}
		}
		if nameErr != nil || filterErr != nil {
			return
		}
		if !MatchOne(name, name) {
			t.Fatalf("%q does not match itself", name)
		}
		var tr Trie[bool]
		tr.Set(filter, true)
		got := false
		tr.Match(name, func(bool) bool { got = true; return true })
		if want := MatchOne(filter, name); got != want {
			t.Fatalf("Match(%q, %q) = %v, MatchOne %v", filter, name, got, want)
		}
		if !tr.Delete(filter) || !tr.root.empty() {
			t.Fatalf("Delete(%q) left something", filter)
		}
	})
}
