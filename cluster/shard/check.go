package shard

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

var (
	errUnknownField = errors.New("field unknown to this build")
	errIncomplete   = errors.New("incomplete command")
	errNotForShard  = errors.New("not for a shard")
	errValue        = errors.New("value out of range")
)

// Check tells whether a shard of this build understands e completely. Apply
// stops at an entry that fails it, and with it the node: a leader checks
// before it proposes, so that a faulty peer harms only itself.
func Check(e *shoalpb.Entry) error {
	if err := stream.CheckFormat(e.Format); err != nil {
		return err
	}
	if err := known(e); err != nil {
		return err
	}
	commands := 0
	for i, p := range e.Proposals {
		if err := checkProposal(p); err != nil {
			return fmt.Errorf("proposal %d: %w", i, err)
		}
		commands += len(p.GetBatch().GetCommands())
	}
	if commands > maxCommands {
		return fmt.Errorf("entry of %d commands: %w", commands, errValue)
	}
	return nil
}

func checkProposal(p *shoalpb.Proposal) error {
	if err := known(p); err != nil {
		return err
	}
	if p.Birth != nil || p.NodeUp != nil || p.NodeDown != nil {
		return errNotForShard
	}
	switch set := isSet(p.Batch != nil) + isSet(p.Fence != nil) + isSet(p.OutboxAnswered != nil) +
		isSet(p.Tick != nil) + isSet(p.Dispatch != nil) + isSet(p.Page != nil) + isSet(p.Recover != nil) +
		isSet(p.Relieve != nil); {
	case set != 1:
		return fmt.Errorf("%d kinds at once: %w", set, errIncomplete)
	case p.Batch != nil:
		return checkBatch(p.Batch)
	case p.Fence != nil:
		return checkFence(p.Fence)
	case p.Tick != nil:
		return known(p.Tick)
	case p.Dispatch != nil:
		return checkDispatch(p.Dispatch)
	case p.Page != nil:
		return checkPage(p.Page)
	case p.Recover != nil:
		return checkRecover(p.Recover)
	case p.Relieve != nil:
		return known(p.Relieve)
	default:
		return checkOutboxAnswered(p.OutboxAnswered)
	}
}

func checkBatch(b *shoalpb.Batch) error {
	if err := known(b); err != nil {
		return err
	}
	for i, c := range b.Commands {
		if err := checkCommand(c, b.Node != ""); err != nil {
			return fmt.Errorf("command %d: %w", i, err)
		}
	}
	return nil
}

func checkFence(f *shoalpb.Fence) error {
	if err := known(f); err != nil {
		return err
	}
	for _, n := range f.Nodes {
		if err := known(n); err != nil {
			return err
		}
	}
	return nil
}

func checkRecover(r *shoalpb.Recover) error {
	if r.Server == nil {
		return errIncomplete
	}
	if err := known(r); err != nil {
		return err
	}
	return known(r.Server)
}

func checkOutboxAnswered(o *shoalpb.OutboxAnswered) error {
	if err := known(o); err != nil {
		return err
	}
	if o.Target == nil {
		return errIncomplete
	}
	for _, a := range o.Refused {
		// A target answers what an outbox sends by a code alone.
		if a.Open != nil || a.Subscribe != nil || a.Unsubscribe != nil {
			return errNotForShard
		}
		if err := known(a); err != nil {
			return err
		}
	}
	return known(o.Target)
}

// checkCommand checks one command. A node may send all kinds, another shard's
// outbox only Append and Retain.
func checkCommand(c *shoalpb.Command, fromNode bool) error {
	if err := known(c); err != nil {
		return err
	}
	set := isSet(c.Append != nil) + isSet(c.Open != nil) + isSet(c.Close != nil) + isSet(c.Drained != nil) +
		isSet(c.Subscribe != nil) + isSet(c.Unsubscribe != nil) + isSet(c.Received != nil) +
		isSet(c.Released != nil) + isSet(c.Release != nil) + isSet(c.Ack != nil) + isSet(c.Route != nil) +
		isSet(c.Retain != nil)
	switch {
	case set != 1:
		return fmt.Errorf("%d kinds at once: %w", set, errIncomplete)
	case c.Route != nil:
		return errNotForShard
	case c.Append != nil:
		if err := known(c.Append); err != nil {
			return err
		}
		for _, p := range c.Append.Picks {
			if err := known(p); err != nil {
				return err
			}
		}
		return checkMessage(c.Append.Message)
	case c.Retain != nil:
		if err := known(c.Retain); err != nil {
			return err
		}
		return checkMessage(c.Retain.Message)
	case !fromNode:
		return fmt.Errorf("from an outbox: %w", errNotForShard)
	case c.Received != nil:
		return checkReceived(c.Received)
	case c.Subscribe != nil:
		return checkSubscribe(c.Subscribe)
	case c.Open != nil:
		return checkOpen(c.Open)
	}
	return checkPlain(c)
}

// checkPlain checks the commands that hold no other messages.
func checkPlain(c *shoalpb.Command) error {
	switch {
	case c.Close != nil:
		return known(c.Close)
	case c.Drained != nil:
		return known(c.Drained)
	case c.Unsubscribe != nil:
		return known(c.Unsubscribe)
	case c.Released != nil:
		return known(c.Released)
	case c.Release != nil:
		return known(c.Release)
	default:
		return known(c.Ack)
	}
}

func checkMessage(m *shoalpb.Message) error {
	if m == nil {
		return errIncomplete
	}
	if m.Qos > 2 {
		return fmt.Errorf("QoS %d: %w", m.Qos, errValue)
	}
	return known(m)
}

func checkOpen(o *shoalpb.Open) error {
	if err := known(o); err != nil {
		return err
	}
	if o.Window > 65535 {
		return fmt.Errorf("window %d: %w", o.Window, errValue)
	}
	if l := o.Limits; l != nil {
		if l.Policy < 0 || l.Policy > shoalpb.QueuePolicy_QUEUE_POLICY_REJECT {
			return fmt.Errorf("queue policy %d: %w", l.Policy, errValue)
		}
		if err := known(l); err != nil {
			return err
		}
	}
	if o.Will == nil {
		return nil
	}
	if err := known(o.Will); err != nil {
		return err
	}
	return checkMessage(o.Will.Message)
}

func checkSubscribe(s *shoalpb.Subscribe) error {
	for _, sub := range s.Subscriptions {
		if sub.Qos > 2 || sub.RetainHandling > 2 {
			return fmt.Errorf("subscription options: %w", errValue)
		}
		if err := known(sub); err != nil {
			return err
		}
	}
	return known(s)
}

func checkPage(p *shoalpb.Page) error {
	for _, m := range p.Messages {
		if err := checkMessage(m); err != nil {
			return err
		}
	}
	return known(p)
}

func checkReceived(r *shoalpb.Received) error {
	if r.Id == 0 || r.Id > 65535 {
		return fmt.Errorf("packet identifier %d: %w", r.Id, errValue)
	}
	if err := checkTargets(r.Targets, r.Picks); err != nil {
		return err
	}
	if err := checkMessage(r.Message); err != nil {
		return err
	}
	return known(r)
}

func checkDispatch(d *shoalpb.Dispatch) error {
	if d.Due == 0 {
		return errIncomplete
	}
	if err := checkTargets(d.Targets, d.Picks); err != nil {
		return err
	}
	return known(d)
}

// checkTargets checks where a message goes. The directory, group 0, takes none.
func checkTargets(targets []*shoalpb.Target, picks []*shoalpb.TargetPick) error {
	check := func(t *shoalpb.Target) error {
		if (t.GetNode() == "") == (t.GetGroup() == 0) {
			return fmt.Errorf("target: %w", errValue)
		}
		return known(t)
	}
	for _, t := range targets {
		if err := check(t); err != nil {
			return err
		}
	}
	for _, p := range picks {
		if p.Pick == nil {
			return errIncomplete
		}
		if err := check(p.Target); err != nil {
			return err
		}
		if err := known(p); err != nil {
			return err
		}
		if err := known(p.Pick); err != nil {
			return err
		}
	}
	return nil
}

// known refuses a message with fields of a later build. It looks at this
// message alone, not at those inside.
func known(m interface{ ProtoReflect() protoreflect.Message }) error {
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("%s: %w", m.ProtoReflect().Descriptor().Name(), errUnknownField)
	}
	return nil
}

func isSet(b bool) int {
	if b {
		return 1
	}
	return 0
}
