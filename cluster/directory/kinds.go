package directory

import (
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// The kinds of Proposal and Command, each with its check and with what applies it.
// A new kind is one row here and one in the tables of cluster/shard. Unknown fields
// are looked for by Check, everywhere in an entry.

type (
	proposalApply = func(*Machine, *shoalpb.Proposal, *Effects) Result
	commandApply  = func(*Machine, Source, *shoalpb.Command) *shoalpb.Answer
	proposalKind  = stream.Kind[shoalpb.Proposal, proposalApply]
	commandKind   = stream.Kind[shoalpb.Command, commandApply]
)

var proposalKinds = stream.NewKinds(
	proposalKind{
		Name:  "batch",
		Check: func(p *shoalpb.Proposal) error { return checkBatch(p.Batch) },
		Apply: func(m *Machine, p *shoalpb.Proposal, eff *Effects) Result { return m.applyBatch(p.Batch, eff) },
	},
	proposal("birth", (*shoalpb.Proposal).GetBirth, complete, (*Machine).applyBirth),
	proposal("node_up", (*shoalpb.Proposal).GetNodeUp, checkNodeUp, (*Machine).applyNodeUp),
	proposal("node_down", (*shoalpb.Proposal).GetNodeDown, complete, (*Machine).applyNodeDown),
	proposal("place", (*shoalpb.Proposal).GetPlace, complete, (*Machine).applyPlace),
	proposal("set_node", (*shoalpb.Proposal).GetSetNode, complete, (*Machine).applySetNode),
	proposal("remove_node", (*shoalpb.Proposal).GetRemoveNode, complete, (*Machine).applyRemoveNode),
	proposal("recover", (*shoalpb.Proposal).GetRecover, checkRecover, (*Machine).applyRecover),
	// Shards':
	proposalKind{Name: "fence"},
	proposalKind{Name: "outbox_answered"},
	proposalKind{Name: "tick"},
	proposalKind{Name: "page"},
	proposalKind{Name: "dispatch"},
	proposalKind{Name: "relieve"},
	proposalKind{Name: "live"},
)

var commandKinds = stream.NewKinds(
	commandKind{
		Name:  "route",
		Check: func(*shoalpb.Command) error { return nil },
		Apply: func(m *Machine, s Source, c *shoalpb.Command) *shoalpb.Answer { return m.applyRoute(s, c.Route) },
	},
	// Shards':
	commandKind{Name: "append"},
	commandKind{Name: "open"},
	commandKind{Name: "close"},
	commandKind{Name: "drained"},
	commandKind{Name: "confirm"},
	commandKind{Name: "subscribe"},
	commandKind{Name: "unsubscribe"},
	commandKind{Name: "received"},
	commandKind{Name: "released"},
	commandKind{Name: "release"},
	commandKind{Name: "ack"},
	commandKind{Name: "retain"},
)

// complete is the check of a kind that has nothing to check: what is wrong with it
// is refused in apply.
func complete[P any](*P) error { return nil }

// proposal is the row of a kind that is answered with why it was refused.
func proposal[P any](name string, get func(*shoalpb.Proposal) *P, check func(*P) error, apply func(*Machine, *P, *Effects) string) proposalKind {
	return proposalKind{
		Name:  name,
		Check: func(p *shoalpb.Proposal) error { return check(get(p)) },
		Apply: func(m *Machine, p *shoalpb.Proposal, eff *Effects) Result {
			return Result{Err: apply(m, get(p), eff)}
		},
	}
}
