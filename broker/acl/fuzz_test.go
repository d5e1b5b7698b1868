package acl

import (
	"testing"
)

// FuzzMosquitto and FuzzYAML: a file is refused, or can be asked.
func FuzzMosquitto(f *testing.F) {
	f.Add("user a\ntopic read b/#\npattern deny %u/%c\n", "c", "u")
	f.Fuzz(func(t *testing.T, text, id, user string) { askAll(t, ParseMosquitto, text, id, user) })
}

func FuzzYAML(f *testing.F) {
	f.Add(plant, "c", "u")
	f.Fuzz(func(t *testing.T, text, id, user string) { askAll(t, ParseYAML, text, id, user) })
}

func askAll(t *testing.T, parse func(string, []byte) (*Rules, error), text, id, user string) {
	r, err := parse("f", []byte(text))
	if err != nil {
		return
	}
	s := NewSet("f", parse, quiet())
	s.rules.Store(r)
	p, err := s.Permissions(client(id, user))
	if err != nil {
		return
	}
	for _, n := range []string{"a", "a/b", "/", "$SYS/x", "line/c/x"} {
		if p.Receive(n) && !p.Subscribe(n, 0, false) {
			t.Fatalf("%q may be received and not subscribed to", n)
		}
		p.Publish(n, 1, true)
		p.Subscribe(n+"/#", 0, true)
	}
}
