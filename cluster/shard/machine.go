package shard

import (
	"fmt"

	"github.com/shoalmq/shoal/broker/topic"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Config says which shard this is and its limits. It must be the same on all
// replicas. A limit of 0 means the default.
type Config struct {
	// Group is the shard's number, from 1.
	Group uint32
	// Life is the life of the group: 1, raised by recovery from a lost
	// majority.
	Life uint32
	// QueueEntries and QueueBytes bound the unfinished queue entries of a session
	// that has no limits of its own.
	QueueEntries int
	QueueBytes   int
	// Subscriptions bounds the subscriptions of one session.
	Subscriptions int
	// OutboxEntries and OutboxBytes are where an outbox is called full.
	OutboxEntries int
	OutboxBytes   int
	// RestoreBytes bounds what messages that are restored take in memory; others
	// stay in the state file alone. It may differ between replicas.
	RestoreBytes int
	// Retained bounds the retained messages.
	Retained int
	// RegisterOf is the shard that keeps the retained message of a topic: a pure
	// function that never changes. nil: this one, for all topics.
	RegisterOf func(topic string) uint32

	// sweepPage is what an entry sweeps after a fence, segment how many entries a
	// segment of a queue has, unrowed how many are in the session's row. Tests have
	// them lower.
	sweepPage, segment, unrowed int
}

// Machine is the state of one shard. See the package comment for who may call
// what when.
type Machine struct {
	cfg     Config
	applied uint64
	// clock is the shard's time in milliseconds: the highest of all entries.
	// wallClock is its value that belonged to the wall time wall.
	clock           uint64
	wall, wallClock uint64
	bodySeq         uint64
	// format is the highest of the entries so far, up to FormatOrder: from then on
	// all nodes know it.
	format uint32
	in     *stream.In

	sessions  map[string]*session
	filters   topic.Trie[*filter]
	shares    map[string]*share // Shared Subscriptions
	outboxes  []*outbox         // ascending by target
	processes map[processKey]*process
	// unswept are dead processes that may have something here still, in order of
	// (node, boot).
	unswept []*process
	// stranded are detached sessions that may have unsent entries of Shared
	// Subscriptions: what there is to look at, and no part of the state.
	stranded map[*session]struct{}
	// held are the sessions with former owners.
	held map[*session]struct{}
	// known are limits that sessions share.
	known     map[limits]*limits
	resident  resident
	pinned    map[*body]int // by the number of reasons
	due       dueList
	deadlines deadlines
	retained  topic.Trie[*retained]
	fading    fading
	// roomy are the sessions with replays whose queues have room for a page: no
	// part of the state. nextReplay numbers replays.
	roomy      map[*session]struct{}
	nextReplay uint64

	counters *shoalpb.ShardCounters
	gauges   gauges
	file     file

	// Scratch of Apply.
	now     now
	matcher *matcher
	spare   []*queue
	// movedShares have members that came or went in this entry.
	movedShares []*share
}

// now is what the running Apply works on.
type now struct {
	eff   *Effects
	batch *shoalpb.Batch
	// conn is the number of a connection opened by the command at place 0 of
	// batch; place is that of the running command.
	conn, place uint64
	// page is what the entry may sweep still; sweeps: it does so just now.
	page   int
	sweeps bool
}

// Result is what became of one proposal.
type Result struct {
	// Batch answers a Batch; nil for other proposals. It is shared with the
	// state: read only.
	Batch *shoalpb.BatchAnswer
}

// New returns an empty shard.
func New(c Config) *Machine {
	setDefault(&c.QueueEntries, defaultQueueEntries)
	setDefault(&c.QueueBytes, defaultQueueBytes)
	setDefault(&c.Subscriptions, defaultSubscriptions)
	setDefault(&c.OutboxEntries, defaultOutboxEntries)
	setDefault(&c.OutboxBytes, defaultOutboxBytes)
	setDefault(&c.RestoreBytes, defaultRestoreBytes)
	setDefault(&c.Retained, defaultRetained)
	if c.RegisterOf == nil {
		c.RegisterOf = func(string) uint32 { return c.Group }
	}
	setDefault(&c.sweepPage, sweepPage)
	setDefault(&c.segment, segmentRefs)
	setDefault(&c.unrowed, sessionRowRefs)
	return &Machine{
		cfg:       c,
		format:    stream.FirstFormat,
		in:        stream.NewIn(c.Group, c.Life),
		sessions:  map[string]*session{},
		processes: map[processKey]*process{},
		held:      map[*session]struct{}{},
		shares:    map[string]*share{},
		stranded:  map[*session]struct{}{},
		known:     map[limits]*limits{},
		pinned:    map[*body]int{},
		due:       newDueList(),
		roomy:     map[*session]struct{}{},
		counters:  &shoalpb.ShardCounters{},
		file:      file{generation: 1},
		matcher:   newMatcher(),
	}
}

func setDefault(limit *int, value int) {
	if *limit == 0 {
		*limit = value
	}
}

// Applied is the index of the last entry in the state.
func (m *Machine) Applied() uint64 { return m.applied }

// FenceNumber is the number of the directory's fences that this shard knows.
func (m *Machine) FenceNumber() uint64 { return m.in.FenceNumber() }

// Apply applies the log entry e at index and returns one Result for each
// proposal. Entries that are not newer than Applied are ignored. What a leader
// has to tell nodes is added to eff; eff may be nil.
//
// The machine keeps messages of e: e must not be changed afterwards. An error
// means that this build does not understand e: the state is untouched and the
// node must stop.
func (m *Machine) Apply(index uint64, e *shoalpb.Entry, eff *Effects) ([]Result, error) {
	if index <= m.applied {
		return nil, nil
	}
	if err := Check(e); err != nil {
		return nil, fmt.Errorf("apply to shard %d: %w", m.cfg.Group, err)
	}
	m.applied = index
	m.clock = max(m.clock, e.ClockMs)
	m.format = max(m.format, min(e.Format, stream.FormatOrder))
	m.now = now{eff: eff, conn: index << positionBits, page: m.cfg.sweepPage}
	m.sweep()
	m.passTime()
	results := make([]Result, len(e.Proposals))
	for i, p := range e.Proposals {
		results[i] = proposalKinds.Apply(p)(m, p)
	}
	m.tellMoved()
	m.now = now{}
	return results, nil
}

func (m *Machine) applyBatch(b *shoalpb.Batch) Result {
	m.now.batch = b
	a := m.in.Apply(b, func(n uint64, c *shoalpb.Command) *shoalpb.Answer {
		m.now.place = n - b.First
		return commandKinds.Apply(c).do(m, c)
	})
	a.Full = m.full()
	a.Index = m.applied
	m.now.conn += uint64(len(b.Commands))
	return Result{Batch: a}
}

// openCommand opens a connection. Its number is unlike that of all others.
func (m *Machine) openCommand(c *shoalpb.Open) *shoalpb.Answer {
	return m.open(c, m.now.conn+m.now.place)
}

// refuse is the answer of a number that was consumed with an exception.
func refuse(code shoalpb.Code) *shoalpb.Answer { return &shoalpb.Answer{Code: code} }

func notOwner() *shoalpb.Answer { return refuse(shoalpb.Code_CODE_NOT_OWNER) }
