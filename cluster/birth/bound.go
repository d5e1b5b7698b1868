package birth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// standing is how another member stands to this node's set.
type standing int

const (
	unreachable standing = iota
	replaced             // its node has another disk
	bornWith             // born with the set
	bornElsewhere
	promisedTo   // to the set
	promisedLess // to a set that sorts lower
	promisedMore // to a set that sorts higher, or void to another set
	voided       // has made the set void
	free         // unborn, without a promise
)

// member is what a round has found out about one other member of the set.
type member struct {
	name     string // "node/disk"
	standing standing
	reply    *shoalpb.HelloReply // nil if unreachable
	why      string              // what this node waits for
}

// ask asks all other members of the set; with propose it proposes the set.
func (b *Birth) ask(ctx context.Context, set []string, propose bool) []member {
	var proposal []string
	if propose {
		proposal = set
	}
	var found []member
	for _, name := range set {
		if name == b.c.Self {
			continue
		}
		node, _ := split(name)
		reply, err := b.hello(ctx, node, proposal)
		if err != nil {
			found = append(found, member{name: name, why: fmt.Sprintf("%s: %v", name, err)})
			continue
		}
		found = append(found, b.judge(name, set, reply))
	}
	return found
}

// judge says how a member stands.
func (b *Birth) judge(name string, set []string, reply *shoalpb.HelloReply) member {
	m := member{name: name, reply: reply, why: name + ": " + reply.Error}
	p := promise{}
	if reply.Promise != nil {
		p = promise{reply.Promise.Members, reply.Promise.Void}
	}
	_, disk := split(name)
	switch {
	case reply.Disk != disk && b.alive(name):
		// Two processes of one node name, or gossip has not noticed yet.
		m.standing, m.why = unreachable, fmt.Sprintf("%s: its node answers with disk %s, but gossip sees both", name, reply.Disk)
	case reply.Disk != disk:
		m.standing = replaced
	case reply.ClusterId != "" && p.to(set) && !p.void:
		m.standing = bornWith
	case reply.ClusterId != "":
		m.standing = bornElsewhere
	case p.members == nil:
		m.standing = free
	case p.to(set) && p.void:
		m.standing = voided
	case p.to(set):
		m.standing = promisedTo
	case !p.void && slices.Compare(p.members, set) < 0:
		m.standing = promisedLess
	default:
		m.standing = promisedMore
	}
	return m
}

// alive says that gossip sees exactly this node with this disk.
func (b *Birth) alive(name string) bool {
	return slices.ContainsFunc(b.c.Peers.Members(), func(p Peer) bool { return p.Node+"/"+p.Disk == name })
}

// promisedRound is the round of a promised disk: be born if all are promised or
// one is born; void if the set is impossible; else wait.
func (b *Birth) promisedRound(ctx context.Context, s seen) error {
	set := s.promise.members
	found := b.ask(ctx, set, true)
	nonce := b.c.Nonce
	var missing, impossible, unequal []string
	for _, m := range found {
		switch m.standing {
		case bornWith:
			return b.born(s, m.reply.ClusterId, int(m.reply.Shards))
		case promisedTo:
			if m.name == set[0] {
				nonce = m.reply.Nonce
			}
			if int(m.reply.Shards) != b.c.Shards {
				unequal = append(unequal, fmt.Sprintf("%s has %d", m.name, m.reply.Shards))
			}
		case replaced, bornElsewhere, promisedLess, voided:
			impossible = append(impossible, m.name)
		default:
			missing = append(missing, m.why)
		}
	}
	switch {
	case len(impossible) > 0:
		b.c.Log.Warn("the promised set cannot come about", "members", set, "because of", impossible)
		_, err := b.change(s, promise{members: set, void: true})
		return err
	case len(unequal) > 0:
		b.complain("this node has %d shards, but %s: they must be equal", b.c.Shards, strings.Join(unequal, ", "))
		return nil
	case len(missing) > 0:
		b.wait("promised members: %s", strings.Join(missing, "; "))
		return nil
	}
	return b.born(s, clusterID(set, nonce), b.c.Shards)
}

// voidRound is the round of a void disk: be born after all if one is born with
// the set; free if nobody is, nor can be, now; else wait.
func (b *Birth) voidRound(ctx context.Context, s seen) error {
	var missing []string
	found := b.ask(ctx, s.promise.members, false)
	for _, m := range found {
		switch m.standing {
		case bornWith:
			return b.born(s, m.reply.ClusterId, int(m.reply.Shards))
		case unreachable:
			missing = append(missing, m.why)
		case promisedTo:
			missing = append(missing, m.name+": has not made it void yet")
		}
	}
	if len(missing) > 0 {
		b.wait("members of a void set: %s", strings.Join(missing, "; "))
		return nil
	}
	_, err := b.change(s, promise{})
	return err
}
