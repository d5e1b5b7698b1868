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
	led     uint64 // what the leader's own copy has applied
	awake   awake
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
	// silent is for how long the leader has run since the count ended, or, of a
	// process that was never counted, since it appeared or last asked.
	silent time.Duration
	// dead: it was returned by Expired, last at proposed.
	dead     bool
	proposed time.Duration
	// owed is an index that the leader's copy has, and which the process has not
	// reported for as long as the leader ran for in owedFor; 0 for none.
	owed    uint64
	owedFor time.Duration
}

// NewTable returns the table of the leader of a term. firstIndex is that of the
// first entry of this term, which the leader's copy of the directory has applied
// before it calls this; nodes are the processes that are up in that copy. All of
// them count as leased for Count from now.
func NewTable(now time.Duration, term uint64, firstIndex uint64, nodes []Member) *Table {
	t := &Table{term: term, first: firstIndex, nodes: map[string]*process{}, awake: awake{now}}
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
			p = &process{boot: m.Boot}
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
		p.report(r, t.led)
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
		p.owe(t.led)
	}
}

// report notes what the process has applied. What an earlier copy had applied,
// one that an install has replaced since, counts no more.
func (p *process) report(r Report, led uint64) {
	switch {
	case r.Copy < p.copy:
		return
	case r.Copy > p.copy:
		p.copy, p.applied, p.owed = r.Copy, r.Applied, 0
	default:
		p.applied = max(p.applied, r.Applied)
	}
	p.owe(led)
}

// owe notes what the process lacks of what the leader's copy has.
func (p *process) owe(led uint64) {
	switch {
	case p.applied >= led:
		p.owed = 0
	case p.owed == 0 || p.applied >= p.owed:
		p.owed, p.owedFor = led, 0
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
	if !p.counted {
		p.silent = 0
	}
	p.report(r, t.led)
	switch needed := max(t.first, t.visible); {
	case p.dead:
		return false, "the process is being declared dead"
	case !confirmed:
		return false, "leadership of the directory is not confirmed"
	case r.Copy < p.copy:
		return false, "the copy of the directory has been replaced since"
	case r.Applied < needed: // not p.applied: a copy without a number may have been set back
		return false, fmt.Sprintf("the directory is applied up to %d of %d", r.Applied, needed)
	case p.owed != 0 && p.owedFor > LagLimit:
		return false, fmt.Sprintf("the directory is applied up to %d, and %d has been there for %v", p.applied, p.owed, p.owedFor)
	}
	p.counted, p.until, p.silent = true, now+Count, 0
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
	t.tick(now)
	all := make(map[string]time.Duration, len(t.nodes))
	for node, p := range t.nodes {
		all[node] = 0
		if p.owed != 0 {
			all[node] = p.owedFor
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
		if now >= p.due(now) {
			p.dead, p.proposed = true, now
			expired = append(expired, Member{node, p.boot})
		}
	}
	slices.SortFunc(expired, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return expired
}

// due returns when p is to be declared dead, if the leader runs until then.
func (p *process) due(now time.Duration) time.Duration {
	switch {
	case p.dead:
		return p.proposed + repeatDead
	case p.leased(now):
		return p.until + DeadAfter
	case p.counted:
		return now + DeadAfter - p.silent
	}
	return now + newcomerPatience - p.silent
}

// Next returns when Visible or Expired may answer otherwise if nothing else
// happens: a time not before now, or Never.
func (t *Table) Next(now time.Duration) time.Duration {
	t.tick(now)
	next := Never
	for _, p := range t.nodes {
		if p.leased(now) {
			next = min(next, p.until)
		} else {
			next = min(next, max(now, p.due(now)))
		}
	}
	return next
}

// tick counts how long processes have been silent while the leader ran: nobody is
// declared dead for not renewing while the leader itself was suspended.
func (t *Table) tick(now time.Duration) {
	ran := t.awake.tick(now)
	for _, p := range t.nodes {
		switch {
		case !p.counted:
			p.silent += ran
		case !p.leased(now):
			p.silent += min(ran, now-p.until)
		}
		p.owedFor += ran
	}
}
