package acl

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalmq/shoal/broker/topic"
)

// TestReachAround: whatever rules there are and whatever a client subscribes to,
// what it gets is what a plain reading of the rules lets it receive; a subscription
// that could bring something is not refused; and a Shared Subscription that is
// granted has nothing that it may not receive. With few rules and with an index.
func TestReachAround(t *testing.T) {
	levels := []string{"a", "b", "", "$s"}
	var names []string
	for _, x := range levels {
		for _, y := range append([]string{"\x00"}, levels...) {
			if n := strings.TrimSuffix(x+"/"+y, "/\x00"); topic.ValidateName(n) == nil {
				names = append(names, n)
			}
		}
	}
	filter := rapid.Custom(func(t *rapid.T) string {
		level := rapid.SampledFrom([]string{"a", "b", "", "$s", "+", "#", "%c"})
		for {
			f := strings.Join(rapid.SliceOfN(level, 1, 3).Draw(t, "levels"), "/")
			if topic.ValidateFilter(f) == nil {
				return f
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		type plain struct {
			deny, publish, receive bool
			filter                 string
		}
		var rules []plain
		text := "default: " + rapid.SampledFrom([]string{"allow", "deny"}).Draw(t, "default") + "\nrules:\n"
		for range rapid.IntRange(0, 40).Draw(t, "rules") {
			r := plain{rapid.Bool().Draw(t, "deny"), rapid.Bool().Draw(t, "publish"), rapid.Bool().Draw(t, "receive"), filter.Draw(t, "filter")}
			if !r.publish && !r.receive {
				continue
			}
			rules = append(rules, r)
			actions := strings.Trim(fmt.Sprintf("%s,%s", map[bool]string{true: "publish"}[r.publish], map[bool]string{true: "subscribe"}[r.receive]), ",")
			text += fmt.Sprintf("- {%s: [%s], topics: [%q]}\n", map[bool]string{true: "deny", false: "allow"}[r.deny], actions, r.filter)
		}
		parsed, err := ParseYAML("f", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		s := NewSet("f", ParseYAML, quiet())
		s.rules.Store(parsed)
		for _, id := range []string{"c", "b"} { // whose lists are the next one's too
			if _, err := s.Permissions(client(id, "u")); err != nil {
				t.Fatal(err)
			}
		}
		id := rapid.SampledFrom([]string{"a", "b", "$s", "+", "b/a"}).Draw(t, "client")
		p, err := s.Permissions(client(id, "u"))
		if err != nil {
			t.Fatal(err)
		}
		may := func(name string, about func(plain) bool) bool {
			for _, r := range rules {
				unsafe := strings.Contains(r.filter, "%c") && (strings.ContainsAny(id, "+/") || id == "$s" && strings.HasPrefix(r.filter, "%c"))
				if unsafe && r.deny {
					return false // whatever it is about
				}
				if !unsafe && about(r) && topic.MatchOne(strings.ReplaceAll(r.filter, "%c", id), name) {
					return !r.deny
				}
			}
			return parsed.allow
		}
		for range 2 { // the second time from memory
			for _, n := range names {
				if p.Receive(n) != may(n, func(r plain) bool { return r.receive }) || p.Publish(n, 0, false) != may(n, func(r plain) bool { return r.publish }) {
					t.Fatalf("%q: %q\n%s", n, rights(p, n), text)
				}
			}
		}
		f := filter.Draw(t, "subscription")
		some, all := false, true
		for _, n := range names {
			if topic.MatchOne(f, n) {
				ok := may(n, func(r plain) bool { return r.receive })
				some, all = some || ok, all && ok
			}
		}
		if some && !p.Subscribe(f, 0, false) {
			t.Fatalf("%q could bring something and is refused\n%s", f, text)
		}
		if !all && p.Subscribe(f, 0, true) {
			t.Fatalf("%q could bring what must not be received and is granted as a shared one\n%s", f, text)
		}
	})
}
