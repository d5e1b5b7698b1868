package lease

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Member is one process of a node.
type Member struct {
	Node string
	Boot uint64
}

// Table is the leader's side: who holds a lease, for one term of the directory's
// leader. All times are on the leader's clock and must not fall.
type Table struct {
	term    uint64
	first   uint64
	nodes   map[string]*process
	visible uint64
	led     uint64        // what the leader's own copy has applied
	ran     time.Duration // the last call
	woke    time.Duration // the last call after a stall
}

// process is what the leader knows of one process.
type process struct {
	boot uint64
	// applied is what copy number copy of the directory has applied; 0: not known.
	copy, applied uint64
	// until is when the count ends, of a process that was ever granted a lease
	// or is counted since the leader began.
	until   time.Duration
	counted bool
	// heard is when a process that was never counted appeared or last asked.
	heard time.Duration
	// dead: it was returned by Expired, last at proposed.
	dead     bool
	proposed time.Duration
	// owed is an index that the leader's copy has had since owedSince and the
	// process has not reported yet; 0 for none.
	owed      uint64
	owedSince time.Duration
}

// NewTable returns the table of the leader of a term. firstIndex is that of the
// first entry of this term, which the leader's copy of the directory has applied
// before it calls this; nodes are the processes that are up in that copy. All of
// them count as leased for Count from now.
func NewTable(now time.Duration, term uint64, firstIndex uint64, nodes []Member) *Table {
	t := &Table{term: term, first: firstIndex, nodes: map[string]*process{}, ran: now}
	for _, m := range nodes {
		t.nodes[m.Node] = &process{boot: m.Boot, counted: true, until: now + Count}
	}
	return t
}

// Term returns the term of the leader.
func (t *Table) Term() uint64 { return t.term }

// SetNodes tells the processes that are up in the leader's copy of the directory.
// One that is not among them any more is fenced and gone at once; a new one
// counts from its first grant.
func (t *Table) SetNodes(now time.Duration, nodes []Member) {
	t.tick(now)
	old := t.nodes
	t.nodes = make(map[string]*process, len(nodes))
	for _, m := range nodes {
		p := old[m.Node]
		if p == nil || p.boot != m.Boot {
			p = &process{boot: m.Boot, heard: now}
		}
		t.nodes[m.Node] = p
	}
}

// Report is what a process says of its copy of the directory.
type Report struct {
	Node string
	Boot uint64
	// Copy numbers the copies that the process has had: Holder.Copy. 0 is that of
	// a build that does not number them.
	Copy uint64
	// Applied is the index that this copy has applied.
	Applied uint64
}

// Applied takes a report.
func (t *Table) Applied(now time.Duration, r Report) {
	t.tick(now)
	if p := t.nodes[r.Node]; p != nil && p.boot == r.Boot {
		p.report(now, r, t.led)
	}
}

// Led tells the index that the leader's own copy of the directory has applied.
// A process that lacks an index for longer than LagLimit is granted nothing
// until it has it: else one slow copy would hold up every subscription.
func (t *Table) Led(now time.Duration, index uint64) {
	t.tick(now)
	if index <= t.led {
		return
	}
	t.led = index
	for _, p := range t.nodes {
		p.owe(now, t.led)
	}
}

// report notes what the process has applied. What an earlier copy had applied,
// one that an install has replaced since, counts no more.
func (p *process) report(now time.Duration, r Report, led uint64) {
	switch {
	case r.Copy < p.copy:
		return
	case r.Copy > p.copy:
		p.copy, p.applied, p.owed = r.Copy, r.Applied, 0
	default:
		p.applied = max(p.applied, r.Applied)
	}
	p.owe(now, led)
}

// owe notes since when the process has lacked an entry that the leader's copy has.
func (p *process) owe(now time.Duration, led uint64) {
	switch {
	case p.applied >= led:
		p.owed = 0
	case p.owed == 0 || p.applied >= p.owed:
		p.owed, p.owedSince = led, now
	}
}

// Renew answers a request of a process for a lease, which carries a report.
// confirmed says that a quorum confirmed, by answers to questions asked after the
// request came in, that this term still leads. If nothing is granted, reason says
// why, in words.
func (t *Table) Renew(now time.Duration, r Report, confirmed bool) (granted bool, reason string) {
	t.tick(now)
	p := t.nodes[r.Node]
	if p == nil || p.boot != r.Boot {
		return false, "the directory does not have this process as up"
	}
	p.heard = now
	p.report(now, r, t.led)
	switch needed := max(t.first, t.visible); {
	case p.dead:
		return false, "the process is being declared dead"
	case !confirmed:
		return false, "leadership of the directory is not confirmed"
	case r.Copy < p.copy:
		return false, "the copy of the directory has been replaced since"
	case r.Applied < needed: // not p.applied: a copy without a number may have been set back
		return false, fmt.Sprintf("the directory is applied up to %d of %d", r.Applied, needed)
	case p.owed != 0 && now-max(p.owedSince, t.woke) > LagLimit:
		return false, fmt.Sprintf("the directory is applied up to %d, and %d has been there for %v", p.applied, p.owed, now-p.owedSince)
	}
	p.counted, p.until = true, now+Count
	if r.Copy == 0 { // it may have been set back since it reported more
		p.applied = r.Applied
	}
	return true, ""
}

// Visible returns the visible index. It never falls; while nobody is counted it
// stays. What it returned counts as told.
func (t *Table) Visible(now time.Duration) uint64 {
	t.tick(now)
	lowest, some := uint64(0), false
	for _, p := range t.nodes {
		if p.leased(now) && (!some || p.applied < lowest) {
			lowest, some = p.applied, true
		}
	}
	t.visible = max(t.visible, lowest)
	return t.visible
}

func (p *process) leased(now time.Duration) bool { return p.counted && now < p.until }

// Behind tells for how long each process has lacked an entry that the leader's
// copy has: what the visible index waits for.
func (t *Table) Behind(now time.Duration) map[string]time.Duration {
	all := make(map[string]time.Duration, len(t.nodes))
	for node, p := range t.nodes {
		all[node] = 0
		if p.owed != 0 {
			all[node] = now - p.owedSince
		}
	}
	return all
}

// Expired returns the processes to be declared dead, in name order. Nothing is
// granted to them from now on, so the NodeDown must be proposed, by this leader
// in this term; they are returned again from time to time until SetNodes takes
// them away.
func (t *Table) Expired(now time.Duration) []Member {
	t.tick(now)
	var expired []Member
	for node, p := range t.nodes {
		if now >= t.due(p) {
			p.dead, p.proposed = true, now
			expired = append(expired, Member{node, p.boot})
		}
	}
	slices.SortFunc(expired, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return expired
}

// due returns when p is to be declared dead.
func (t *Table) due(p *process) time.Duration {
	switch {
	case p.dead:
		return p.proposed + repeatDead
	case p.counted:
		return max(p.until, t.woke) + DeadAfter
	}
	return max(p.heard, t.woke) + newcomerPatience
}

// Next returns when Visible or Expired may answer otherwise if nothing else
// happens: a time not before now, or Never.
func (t *Table) Next(now time.Duration) time.Duration {
	next := Never
	for _, p := range t.nodes {
		if p.leased(now) {
			next = min(next, p.until)
		} else {
			next = min(next, max(now, t.due(p)))
		}
	}
	return next
}

// tick notices that the leader itself was suspended: nobody is declared dead for
// not renewing meanwhile.
func (t *Table) tick(now time.Duration) {
	if now-t.ran > stall {
		t.woke = now
	}
	t.ran = max(t.ran, now)
}
