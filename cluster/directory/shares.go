package directory

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker/topic"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Routes of Shared Subscriptions lie in a trie of their own, under the Topic
// Filter inside them: plain matching does not see them. A message goes to one
// target of each, so a target has weights in place of a bit.

// shareSet is the Shared Subscriptions of one Topic Filter, ascending by name.
type shareSet struct{ shares []*share }

// share is one Shared Subscription.
type share struct {
	name    string // all of it, "$share/{ShareName}/{filter}"
	targets []shareTarget
	turns   *Turns
}

// shareTarget is a target with members, ascending by source.
type shareTarget struct {
	*target
	seats
}

// seats are what a target has to offer a Shared Subscription.
type seats struct {
	// qos is the highest that is granted to one of members, attached are those of
	// a shard's members that are connected.
	qos               uint8
	members, attached uint32
}

func compareSources(a, b Source) int {
	return cmp.Or(strings.Compare(a.Node, b.Node), cmp.Compare(a.Boot, b.Boot), cmp.Compare(a.Group, b.Group))
}

// inner returns the Topic Filter inside a Shared Subscription.
func inner(filter string) (string, bool) {
	_, rest, shared, err := topic.ParseShare(filter)
	return rest, shared && err == nil
}

func (s *shareSet) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.shares, name, func(sh *share, name string) int { return strings.Compare(sh.name, name) })
}

func (sh *share) find(source Source) (int, bool) {
	return slices.BinarySearchFunc(sh.targets, source, func(t shareTarget, s Source) int { return compareSources(t.Source, s) })
}

// share returns the routes of a Shared Subscription, nil if it has none.
func (r *routes) share(name string) *share {
	filter, _ := inner(name)
	if set, _ := r.shared.Lookup(filter); set != nil {
		if i, ok := set.find(name); ok {
			return set.shares[i]
		}
	}
	return nil
}

// setShare makes the route of source for a Shared Subscription.
func (r *routes) setShare(source Source, name string, w seats) {
	sh := r.share(name)
	if sh != nil {
		if i, ok := sh.find(source); ok && sh.targets[i].seats == w {
			return
		}
	}
	name = strings.Clone(name)
	r.touch(name)
	r.generation++
	if sh == nil {
		sh = r.addShare(name)
	}
	t := r.target(source)
	i, ok := sh.find(t.Source)
	if !ok {
		sh.targets = slices.Insert(sh.targets, i, shareTarget{target: t})
	}
	sh.targets[i].seats = w
	if t.filters != nil {
		t.filters[name] = struct{}{}
	}
}

func (r *routes) addShare(name string) *share {
	filter, _ := inner(name)
	set, ok := r.shared.Lookup(filter)
	if !ok {
		set = &shareSet{}
		r.shared.Set(filter, set)
	}
	sh := &share{name: name, turns: new(Turns)}
	i, _ := set.find(name)
	set.shares = slices.Insert(set.shares, i, sh)
	return sh
}

// removeShare removes the route of source for a Shared Subscription, if there is
// one.
func (r *routes) removeShare(source Source, name string) {
	if sh := r.share(name); sh != nil {
		if i, ok := sh.find(source); ok {
			r.generation++
			r.clearShare(sh.targets[i].target, sh)
		}
	}
}

func (r *routes) clearShare(t *target, sh *share) {
	r.touch(sh.name)
	i, _ := sh.find(t.Source)
	sh.targets = slices.Delete(sh.targets, i, i+1)
	delete(t.filters, sh.name)
	if len(sh.targets) > 0 {
		return
	}
	filter, _ := inner(sh.name)
	set, _ := r.shared.Lookup(filter)
	place, _ := set.find(sh.name)
	set.shares = slices.Delete(set.shares, place, place+1)
	if len(set.shares) == 0 {
		r.shared.Delete(filter)
	}
}

// isAlive tells whether the routes of t count.
func isAlive(alive []uint64, t *target) bool {
	return t.id/64 < len(alive) && alive[t.id/64]>>(t.id%64)&1 == 1
}

// rows are the targets of a Shared Subscription that are alive, as in a RouteRow.
func (sh *share) rows(alive []uint64) (targets []*shoalpb.RouteTarget) {
	if sh == nil {
		return nil
	}
	for _, t := range sh.targets {
		if isAlive(alive, t.target) {
			targets = append(targets, &shoalpb.RouteTarget{
				Group: t.Group, Node: t.Node, Boot: t.Boot,
				Qos: uint32(t.qos), Members: t.members, Attached: t.attached,
			})
		}
	}
	return targets
}

// eachShare visits the Shared Subscriptions in an order that depends on nothing
// but them.
func (r *routes) eachShare(yield func(*share)) {
	r.shared.All(func(_ string, set *shareSet) bool {
		for _, sh := range set.shares {
			yield(sh)
		}
		return true
	})
}
