package broker

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestSubscriptionsModel: whatever was added and removed, and whatever the cache
// remembers, a message reaches each client once, with what its matching
// subscriptions come to.
func TestSubscriptionsModel(t *testing.T) {
	filters := []string{"a", "b", "a/b", "+", "#", "a/+", "a/#", "+/b", "$s/+"}
	names := []string{"a", "b", "a/b", "a/b/c", "$s/x", "other"}
	rapid.Check(t, func(t *rapid.T) {
		b := New(Config{})
		b.cluster = nil
		var conns []*conn
		model := make(map[*conn]map[string]*shoalpb.Subscription)
		for i := range 3 {
			c := &conn{broker: b, bounds: &bounds{}, client: fmt.Sprint("c", i)}
			conns = append(conns, c)
			model[c] = make(map[string]*shoalpb.Subscription)
		}
		t.Repeat(map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				c := rapid.SampledFrom(conns).Draw(t, "client")
				s := &shoalpb.Subscription{
					Filter:            rapid.SampledFrom(filters).Draw(t, "filter"),
					Qos:               rapid.Uint32Range(0, 2).Draw(t, "qos"),
					NoLocal:           rapid.Bool().Draw(t, "no local"),
					RetainAsPublished: rapid.Bool().Draw(t, "retain as published"),
					Identifier:        rapid.Uint32Range(0, 3).Draw(t, "identifier"),
				}
				if _, ok := b.subs.add(c, s); !ok {
					t.Fatal("refused")
				}
				model[c][s.Filter] = s
			},
			"unsubscribe": func(t *rapid.T) {
				c := rapid.SampledFrom(conns).Draw(t, "client")
				filter := rapid.SampledFrom(filters).Draw(t, "filter")
				_, known := model[c][filter]
				if existed := b.subs.remove(c, filter) >= 0; existed != known {
					t.Fatalf("%q existed: %t", filter, existed)
				}
				delete(model[c], filter)
			},
			"leave": func(t *rapid.T) {
				c := rapid.SampledFrom(conns).Draw(t, "client")
				b.subs.removeAll(c)
				c.subs.gone = false // and comes back
				clear(model[c])
			},
			"": func(t *rapid.T) {
				for _, name := range names {
					checkMatch(t, b, name, conns, model)
				}
			},
		})
	})
}

func checkMatch(t *rapid.T, b *Broker, name string, conns []*conn, model map[*conn]map[string]*shoalpb.Subscription) {
	targets, _ := b.subs.match(name)
	for _, c := range conns {
		for _, publisher := range []string{c.client, "another"} {
			want := expected(model[c], name, publisher == c.client)
			var got *grant
			for i := range targets {
				if targets[i].conn != c {
					continue
				}
				if got != nil {
					t.Fatalf("%s: %s is there twice", name, c.client)
				}
				got = targets[i].of(publisher)
			}
			if (got == nil) != (want == nil) {
				t.Fatalf("%s from %s to %s: got %+v, want %+v", name, publisher, c.client, got, want)
			}
			if got == nil {
				continue
			}
			ids := slices.Sorted(slices.Values(got.ids))
			if got.qos != want.qos || got.retain != want.retain || !slices.Equal(ids, want.ids) {
				t.Fatalf("%s from %s to %s: got %+v, want %+v", name, publisher, c.client, got, want)
			}
		}
	}
}

// expected is what a client gets, told from its subscriptions one by one.
func expected(subs map[string]*shoalpb.Subscription, name string, own bool) *grant {
	var g *grant
	for _, s := range subs {
		if !topic.MatchOne(s.Filter, name) || own && s.NoLocal {
			continue
		}
		if g == nil {
			g = &grant{}
		}
		g.qos = max(g.qos, uint8(s.Qos))
		g.retain = g.retain || s.RetainAsPublished
		if s.Identifier != 0 {
			g.ids = append(g.ids, s.Identifier)
		}
	}
	if g != nil {
		slices.Sort(g.ids)
	}
	return g
}
