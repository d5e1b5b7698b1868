package directory

import (
	"errors"
	"fmt"

	"github.com/shoalmq/shoal/broker/topic"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

var errIncomplete = errors.New("incomplete proposal")

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
	for i, p := range e.Proposals {
		if err := checkProposal(p); err != nil {
			return fmt.Errorf("proposal %d: %w", i, err)
		}
	}
	return nil
}

func checkProposal(p *shoalpb.Proposal) error {
	kind, err := proposalKinds.Of(p)
	if err != nil {
		return err
	}
	return kind.Check(p)
}

func checkBatch(b *shoalpb.Batch) error {
	for i, c := range b.Commands {
		if _, err := commandKinds.Of(c); err != nil {
			return fmt.Errorf("command %d: %w", i, err)
		}
	}
	return nil
}

func checkNodeUp(up *shoalpb.NodeUp) error {
	if up.Node == nil {
		return errIncomplete
	}
	return nil
}

func checkRecover(r *shoalpb.Recover) error {
	if r.Server == nil {
		return errIncomplete
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
		results[i] = proposalKinds.Apply(p)(m, p, eff)
	}
	m.routes.sweep(m.sweepPage)
	m.applied = index
	return results, nil
}

func (m *Machine) applyBatch(b *shoalpb.Batch, eff *Effects) Result {
	source := Source{Group: b.Group, Node: b.Node, Boot: b.Boot}
	if b.Node == "" {
		source.Boot = 0
	}
	before := m.in.Last(b.Node, b.Boot, b.Group)
	answer := m.in.Apply(b, func(_ uint64, c *shoalpb.Command) *shoalpb.Answer {
		return commandKinds.Apply(c)(m, source, c)
	})
	if answer.Refusal == shoalpb.Refusal_REFUSAL_NONE && answer.Last != before {
		eff.Routed = append(eff.Routed, source)
	}
	return Result{Batch: answer}
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
