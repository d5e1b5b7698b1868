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
	kind, err := proposalKinds.Of(p)
	if err != nil {
		return err
	}
	return kind.Check(p)
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

// checkCommand checks one command, from a node or from another shard's outbox.
func checkCommand(c *shoalpb.Command, fromNode bool) error {
	if err := known(c); err != nil {
		return err
	}
	kind, err := commandKinds.Of(c)
	switch {
	case err != nil:
		return err
	case !fromNode && !kind.Apply.relayed:
		return fmt.Errorf("%s from an outbox: %w", kind.Name, errNotForShard)
	}
	return kind.Check(c)
}

func checkAppend(a *shoalpb.Append) error {
	if err := known(a); err != nil {
		return err
	}
	for _, p := range a.Picks {
		if err := known(p); err != nil {
			return err
		}
	}
	return checkMessage(a.Message)
}

func checkRetain(r *shoalpb.Retain) error {
	if err := known(r); err != nil {
		return err
	}
	return checkMessage(r.Message)
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

func checkLive(l *shoalpb.Live) error {
	if l.Client == "" || l.Conn == 0 {
		return errIncomplete
	}
	if err := checkMessage(l.Message); err != nil {
		return err
	}
	return known(l)
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
func known[M interface{ ProtoReflect() protoreflect.Message }](m M) error {
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
