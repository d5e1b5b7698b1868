package shard

import (
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// The kinds of Proposal and Command, each with its check and with what applies it.
// A new kind is one row here and one in the tables of cluster/directory.

type (
	proposalKind = stream.Kind[shoalpb.Proposal, func(*Machine, *shoalpb.Proposal) Result]
	commandKind  = stream.Kind[shoalpb.Command, commandApply]
)

// commandApply is what a shard does with one kind of Command.
type commandApply struct {
	// do applies the command and returns nil for "done".
	do func(*Machine, *shoalpb.Command) *shoalpb.Answer
	// relayed tells that outboxes of other shards may send the command, too.
	relayed bool
}

var proposalKinds = stream.NewKinds(
	proposalKind{
		Name:  "batch",
		Check: func(p *shoalpb.Proposal) error { return checkBatch(p.Batch) },
		Apply: func(m *Machine, p *shoalpb.Proposal) Result { return m.applyBatch(p.Batch) },
	},
	proposal("outbox_answered", (*shoalpb.Proposal).GetOutboxAnswered, checkOutboxAnswered, (*Machine).outboxAnswered),
	proposal("tick", (*shoalpb.Proposal).GetTick, known, (*Machine).tick),
	proposal("dispatch", (*shoalpb.Proposal).GetDispatch, checkDispatch, (*Machine).dispatch),
	proposal("page", (*shoalpb.Proposal).GetPage, checkPage, (*Machine).page),
	proposal("live", (*shoalpb.Proposal).GetLive, checkLive, (*Machine).live),
	proposal("relieve", (*shoalpb.Proposal).GetRelieve, known, (*Machine).relieve),
	proposal("fence", (*shoalpb.Proposal).GetFence, checkFence, (*Machine).fence),
	proposal("recover", (*shoalpb.Proposal).GetRecover, checkRecover, (*Machine).recover),
	// The directory's:
	proposalKind{Name: "birth"},
	proposalKind{Name: "node_up"},
	proposalKind{Name: "node_down"},
	proposalKind{Name: "place"},
	proposalKind{Name: "set_node"},
	proposalKind{Name: "remove_node"},
)

var commandKinds = stream.NewKinds(
	fromAll("append", (*shoalpb.Command).GetAppend, checkAppend, (*Machine).appendCommand),
	fromNode("ack", (*shoalpb.Command).GetAck, known, (*Machine).ack),
	fromNode("received", (*shoalpb.Command).GetReceived, checkReceived, (*Machine).receive),
	fromNode("released", (*shoalpb.Command).GetReleased, known, (*Machine).released),
	fromNode("release", (*shoalpb.Command).GetRelease, known, (*Machine).release),
	fromAll("retain", (*shoalpb.Command).GetRetain, checkRetain, (*Machine).retainCommand),
	fromNode("subscribe", (*shoalpb.Command).GetSubscribe, checkSubscribe, (*Machine).subscribe),
	fromNode("unsubscribe", (*shoalpb.Command).GetUnsubscribe, known, (*Machine).unsubscribe),
	fromNode("open", (*shoalpb.Command).GetOpen, checkOpen, (*Machine).openCommand),
	fromNode("close", (*shoalpb.Command).GetClose, known, (*Machine).close),
	fromNode("confirm", (*shoalpb.Command).GetConfirm, known, (*Machine).confirm),
	fromNode("drained", (*shoalpb.Command).GetDrained, known, (*Machine).drained),
	commandKind{Name: "route"}, // the directory's
)

// proposal is the row of a kind whose proposer is told nothing of the outcome.
func proposal[P any](name string, get func(*shoalpb.Proposal) *P, check func(*P) error, apply func(*Machine, *P)) proposalKind {
	return proposalKind{
		Name:  name,
		Check: func(p *shoalpb.Proposal) error { return check(get(p)) },
		Apply: func(m *Machine, p *shoalpb.Proposal) Result {
			apply(m, get(p))
			return Result{}
		},
	}
}

// fromNode is the row of a command that only nodes send.
func fromNode[C any](name string, get func(*shoalpb.Command) *C, check func(*C) error, apply func(*Machine, *C) *shoalpb.Answer) commandKind {
	return commandKind{
		Name:  name,
		Check: func(c *shoalpb.Command) error { return check(get(c)) },
		Apply: commandApply{do: func(m *Machine, c *shoalpb.Command) *shoalpb.Answer { return apply(m, get(c)) }},
	}
}

// fromAll is the row of a command that nodes send and outboxes of other shards.
func fromAll[C any](name string, get func(*shoalpb.Command) *C, check func(*C) error, apply func(*Machine, *C) *shoalpb.Answer) commandKind {
	row := fromNode(name, get, check, apply)
	row.Apply.relayed = true
	return row
}
