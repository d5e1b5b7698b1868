package directory

import (
	"errors"

	"github.com/shoalmq/shoal/broker/topic"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Result is what became of one proposal.
type Result struct {
	// Batch answers a batch, and is nil for all else.
	Batch *shoalpb.BatchAnswer
	// Err says why a proposal was refused, in words for the operator; "" if it
	// was not. A refused proposal changes nothing.
	Err string
}

// Effects is what applies have changed that somebody may wait for. Apply adds to
// it; the caller empties it.
type Effects struct {
	// Fences: the fence number rose; FencesSince tells more.
	Fences bool
	// Nodes: nodes, placement or version changed.
	Nodes bool
	// Routed are sources whose RouteIndex advanced, repeats included.
	Routed []Source
}

// Reset empties e and keeps its memory.
func (e *Effects) Reset() { *e = Effects{Routed: e.Routed[:0]} }

// Check returns an error if this build cannot apply e. What it rejects must not
// be proposed: once committed, it stops every node.
func Check(e *shoalpb.Entry) error {
	if err := stream.CheckFormat(e.Format); err != nil {
		return err
	}
	if err := stream.CheckKnown(e); err != nil {
		return err
	}
	for _, p := range e.Proposals {
		kinds := 0
		for _, set := range []bool{
			p.Batch != nil, p.Birth != nil, p.NodeUp != nil && p.NodeUp.Node != nil, p.NodeDown != nil,
			p.Place != nil, p.SetNode != nil, p.RemoveNode != nil, p.Recover != nil && p.Recover.Server != nil,
		} {
			if set {
				kinds++
			}
		}
		if kinds != 1 || p.Fence != nil || p.OutboxAnswered != nil || p.Tick != nil || p.Page != nil || p.Dispatch != nil {
			return errors.New("not a proposal of the directory")
		}
		for _, c := range p.Batch.GetCommands() {
			if c.Route == nil || c.SizeVT() != (&shoalpb.Command{Route: c.Route}).SizeVT() {
				return errors.New("not a command of the directory")
			}
		}
	}
	return nil
}

// Apply applies the entry at index and returns one result per proposal. An index
// not above Applied is ignored. After an error the state is as before and the
// node must stop: a committed entry is never skipped or half understood. eff may
// be nil. The entry's clock is of no meaning here. Strings of e may be kept.
func (m *Machine) Apply(index uint64, e *shoalpb.Entry, eff *Effects) ([]Result, error) {
	if index <= m.applied {
		return nil, nil
	}
	if err := Check(e); err != nil {
		return nil, err
	}
	if eff == nil {
		eff = &Effects{}
	}
	results := make([]Result, len(e.Proposals))
	for i, p := range e.Proposals {
		switch {
		case p.Batch != nil:
			results[i].Batch = m.applyBatch(p.Batch, eff)
		case p.Birth != nil:
			results[i].Err = m.applyBirth(p.Birth, eff)
		case p.NodeUp != nil:
			results[i].Err = m.applyNodeUp(p.NodeUp.Node, eff)
		case p.NodeDown != nil:
			m.applyNodeDown(p.NodeDown, eff)
		case p.Place != nil:
			results[i].Err = m.applyPlace(p.Place, eff)
		case p.SetNode != nil:
			results[i].Err = m.applySetNode(p.SetNode, eff)
		case p.Recover != nil:
			results[i].Err = m.applyRecover(p.Recover, eff)
		case p.RemoveNode != nil:
			results[i].Err = m.applyRemoveNode(p.RemoveNode, eff)
		}
	}
	m.routes.sweep(m.sweepPage)
	m.applied = index
	return results, nil
}

func (m *Machine) applyBatch(b *shoalpb.Batch, eff *Effects) *shoalpb.BatchAnswer {
	source := Source{Group: b.Group, Node: b.Node, Boot: b.Boot}
	if b.Node == "" {
		source.Boot = 0
	}
	before := m.in.Last(b.Node, b.Boot, b.Group)
	answer := m.in.Apply(b, func(_ uint64, c *shoalpb.Command) *shoalpb.Answer {
		return m.applyRoute(source, c.Route)
	})
	if answer.Refusal == shoalpb.Refusal_REFUSAL_NONE && answer.Last != before {
		eff.Routed = append(eff.Routed, source)
	}
	return answer
}

// applyRoute makes or removes one route. A filter that is none is answered with
// "quota".
func (m *Machine) applyRoute(source Source, c *shoalpb.RouteChange) *shoalpb.Answer {
	_, _, shared, err := topic.ParseShare(c.Filter)
	if err != nil || c.Qos > 2 {
		return &shoalpb.Answer{Code: shoalpb.Code_CODE_QUOTA}
	}
	switch {
	case shared && c.Present:
		m.routes.setShare(source, c.Filter, seats{uint8(c.Qos), c.Members, c.Attached})
	case shared:
		m.routes.removeShare(source, c.Filter)
	case c.Present:
		m.routes.set(source, c.Filter, uint8(c.Qos))
	default:
		m.routes.remove(source, c.Filter)
	}
	return nil
}
