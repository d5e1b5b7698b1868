package lease

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sim is three nodes, their clocks, the directory's log and all leaders that
// still believe in themselves. One step at a time anything may happen; after each
// step what the package promises must hold.
type sim struct {
	t       *rapid.T
	now     time.Duration // true time
	log     []simEntry    // committed entries; index 1 is log[0]
	term    uint64
	nodes   []*simNode
	leaders []*simLeader // the last one was elected last
	net     []simMessage
	// acked is the highest index that a SUBACK anywhere may have waited for.
	acked uint64
}

type simEntry struct {
	term uint64
	up   *Member
	down *Member
}

type simNode struct {
	name    string
	boot    uint64
	offset  time.Duration
	rate    int64 // per mille of true time
	frozen  bool
	applied uint64
	holder  Holder
	publish *simPublish
}

// simPublish is a publish between loading E and comparing it with the clock.
type simPublish struct {
	copy    uint64
	expiry  time.Duration
	needs   uint64 // what was acknowledged before
	matched bool
	at      uint64 // the index it was matched at
}

type simLeader struct {
	on    *simNode
	boot  uint64
	term  uint64
	first uint64
	table *Table
	asked []simAsked
	downs []Member // proposed, not yet committed
}

type simAsked struct {
	simMessage
	confirmed bool
}

type simMessage struct {
	kind    string // renew, report; grant, told
	leader  *simLeader
	node    *simNode
	boot    uint64
	copy    uint64
	sent    time.Duration
	applied uint64
	visible uint64
}

func (m simMessage) report() Report { return Report{m.node.name, m.boot, m.copy, m.applied} }

// says is a message of n about itself.
func (s *sim) says(kind string, n *simNode, l *simLeader) simMessage {
	return simMessage{
		kind: kind, leader: l, node: n, boot: n.boot, sent: n.clock(s.now), copy: n.holder.Copy(), applied: n.applied,
	}
}

func (n *simNode) clock(now time.Duration) time.Duration {
	return n.offset + now*time.Duration(n.rate)/1000
}

func newSim(t *rapid.T) *sim {
	s := &sim{t: t}
	for _, name := range []string{"a", "b", "c"} {
		n := &simNode{
			name: name, boot: 1,
			offset: time.Duration(rapid.IntRange(0, 100).Draw(t, "offset")) * time.Second,
			rate:   rapid.SampledFrom([]int64{976, 1000, 1024}).Draw(t, "rate"),
		}
		s.nodes = append(s.nodes, n)
		s.log = append(s.log, simEntry{up: &Member{name, 1}})
	}
	s.elect(s.nodes[0])
	s.begin(s.leaders[0])
	return s
}

func (s *sim) leader() *simLeader { return s.leaders[len(s.leaders)-1] }

// leads reports whether l can commit and be confirmed.
func (s *sim) leads(l *simLeader) bool { return l.term == s.term }

func (l *simLeader) runs() bool { return !l.on.frozen && l.on.boot == l.boot }

// up returns the processes that are up at index.
func (s *sim) up(index uint64) (up []Member) {
	for _, e := range s.log[:index] {
		if e.up != nil {
			up = slices.DeleteFunc(up, func(m Member) bool { return m.Node == e.up.Node })
			up = append(up, *e.up)
		}
		if e.down != nil {
			up = slices.DeleteFunc(up, func(m Member) bool { return m == *e.down })
		}
	}
	return up
}

// apply lets n apply everything up to index, and a leader on it know.
func (s *sim) apply(n *simNode, index uint64) {
	for n.applied < index {
		n.applied++
		n.holder.Applied(n.applied, s.log[n.applied-1].term)
	}
	for _, l := range s.leaders {
		if l.on == n && l.runs() && l.table != nil {
			l.table.SetNodes(n.clock(s.now), s.up(n.applied))
		}
	}
}

func (s *sim) elect(n *simNode) {
	if len(s.leaders) > 0 && rapid.Bool().Draw(s.t, "log complete") {
		s.commitDowns(s.leader())
	}
	s.term++
	s.log = append(s.log, simEntry{term: s.term})
	s.leaders = append(s.leaders, &simLeader{on: n, boot: n.boot, term: s.term, first: uint64(len(s.log))})
}

func (s *sim) begin(l *simLeader) {
	if l.table == nil && s.leads(l) {
		s.apply(l.on, uint64(len(s.log)))
		l.table = NewTable(l.on.clock(s.now), l.term, l.first, s.up(l.on.applied))
	}
}

// receive hands a message to its addressee.
func (s *sim) receive(m simMessage) {
	switch m.kind {
	case "renew", "report":
		if l := m.leader; l.runs() && l.table != nil {
			l.table.Applied(l.on.clock(s.now), m.report())
			if m.kind == "renew" {
				// Whether a quorum will confirm is decided no earlier than now.
				l.asked = append(l.asked, simAsked{m, s.leads(l)})
			}
		}
	case "grant":
		if !m.node.frozen && m.node.boot == m.boot {
			m.node.holder.Granted(m.sent, m.node.clock(s.now))
		}
	case "told":
		if !m.node.frozen && m.node.boot == m.boot {
			m.node.holder.Told(m.leader.term, m.visible)
		}
	}
}

// answer lets l answer the oldest request that waits for a confirmation.
func (s *sim) answer(l *simLeader) {
	if !l.runs() || len(l.asked) == 0 {
		return
	}
	a := l.asked[0]
	l.asked = l.asked[1:]
	if ok, _ := l.table.Renew(l.on.clock(s.now), a.report(), a.confirmed); ok {
		a.kind = "grant"
		s.net = append(s.net, a.simMessage)
	}
}

func (s *sim) tell(l *simLeader) {
	if !l.runs() || l.table == nil {
		return
	}
	v := l.table.Visible(l.on.clock(s.now))
	for _, n := range s.nodes {
		s.net = append(s.net, simMessage{kind: "told", leader: l, node: n, boot: n.boot, visible: v})
	}
}

func (s *sim) send(kind string, n *simNode, l *simLeader) {
	if !n.frozen {
		s.net = append(s.net, s.says(kind, n, l))
	}
}

// expire lets l declare processes dead.
func (s *sim) expire(l *simLeader) {
	if !l.runs() || l.table == nil {
		return
	}
	l.downs = append(l.downs, l.table.Expired(l.on.clock(s.now))...)
}

// commitDowns commits what the real leader, or one just deposed, has proposed.
func (s *sim) commitDowns(l *simLeader) {
	if s.leads(l) {
		for _, m := range l.downs {
			s.log = append(s.log, simEntry{term: s.term, down: &m})
		}
	}
	l.downs = nil
}

func (s *sim) restart(n *simNode) {
	n.boot++
	n.frozen, n.publish = false, nil
	if rapid.Bool().Draw(s.t, "fenced") { // the process goes on with another boot
		n.holder.Begin(n.clock(s.now))
	} else {
		n.holder = Holder{}
		n.applied = rapid.Uint64Range(0, n.applied).Draw(s.t, "restarted at")
	}
	for i := range n.applied {
		n.holder.Applied(i+1, s.log[i].term)
	}
	if s.leader().table != nil {
		s.log = append(s.log, simEntry{term: s.term, up: &Member{n.name, n.boot}})
	}
}

// install replaces the copy of n by an older one. One that leads is sent nothing.
func (s *sim) install(n *simNode) {
	for _, l := range s.leaders {
		if l.on == n && l.runs() && s.leads(l) {
			return
		}
	}
	n.applied = rapid.Uint64Range(0, n.applied).Draw(s.t, "installed")
	n.holder.SetBack(n.clock(s.now))
	for i := range n.applied {
		n.holder.Applied(i+1, s.log[i].term)
	}
}

// stepPublish takes a publish one step further: load E, match, compare.
func (s *sim) stepPublish(n *simNode) {
	p := n.publish
	switch {
	case n.frozen:
	case p == nil:
		n.publish = &simPublish{copy: n.holder.Copy(), expiry: n.holder.Expiry(), needs: s.acked}
	case !p.matched:
		p.matched, p.at = true, n.applied
	default:
		n.publish = nil
		if n.clock(s.now) < p.expiry && n.holder.Copy() == p.copy && p.at < p.needs {
			s.t.Fatalf("a publish on %s was matched at %d, index %d was acknowledged before", n.name, p.at, p.needs)
		}
	}
}

// check looks at everything at once, as nobody in a real cluster can.
func (s *sim) check() {
	l := s.leader()
	for _, n := range s.nodes {
		if usable := min(n.holder.Visible(), n.applied); !n.frozen {
			s.acked = max(s.acked, usable)
		}
		if !n.holder.Valid(n.clock(s.now)) || l.table == nil || l.boot != l.on.boot {
			continue
		}
		if !slices.Contains(s.up(uint64(len(s.log))), Member{n.name, n.boot}) {
			s.t.Fatalf("%s has a valid lease and was declared dead", n.name)
		}
		if p := l.table.nodes[n.name]; p == nil || p.boot != n.boot || !p.leased(l.on.clock(s.now)) {
			s.t.Fatalf("%s has a valid lease that the leader does not count", n.name)
		}
		if n.applied < l.table.visible {
			s.t.Fatalf("%s has a valid lease and applied %d, visible is %d", n.name, n.applied, l.table.visible)
		}
	}
}

func (s *sim) flush() {
	for _, m := range s.net {
		s.receive(m)
	}
	s.net = nil
}

// some returns nodes that run, often all of them.
func (s *sim) some() (some []*simNode) {
	out := rapid.IntRange(-3, 2).Draw(s.t, "left out")
	for i, n := range s.nodes {
		if i != out && !n.frozen {
			some = append(some, n)
		}
	}
	return some
}

func (s *sim) step() {
	t := s.t
	n := rapid.SampledFrom(s.nodes).Draw(t, "node")
	l := s.leader()
	if rapid.IntRange(0, 3).Draw(t, "stale") == 0 {
		l = rapid.SampledFrom(s.leaders).Draw(t, "leader")
	}
	switch rapid.SampledFrom(simSteps).Draw(t, "step") {
	case "time":
		s.now += time.Duration(rapid.SampledFrom([]int{1, 100, 300, 1000, 2900, 3000, 3100}).Draw(t, "ms")) * time.Millisecond
	case "beat": // the usual: renewals that nothing hinders
		for _, n := range s.some() {
			s.receive(s.says("renew", n, l))
			s.answer(l)
			s.flush()
		}
	case "spread": // the usual: an entry that nothing hinders
		s.log = append(s.log, simEntry{term: s.term})
		some := s.some()
		for _, n := range some {
			s.apply(n, uint64(len(s.log)))
			s.receive(s.says("report", n, l))
		}
		s.tell(l)
		s.flush()
	case "attempt":
		n.publish = nil
		for range 3 {
			s.stepPublish(n)
		}
	case "renew":
		s.send("renew", n, l)
	case "report":
		s.send("report", n, l)
	case "arrive":
		if len(s.net) > 0 {
			s.receive(rapid.SampledFrom(s.net).Draw(t, "message"))
		}
	case "flush":
		s.flush()
	case "lose":
		s.net = nil
	case "answer":
		s.answer(l)
	case "tell":
		s.tell(l)
	case "expire":
		s.expire(l)
	case "down":
		s.commitDowns(l)
	case "commit":
		s.log = append(s.log, simEntry{term: s.term})
	case "apply":
		if !n.frozen {
			s.apply(n, rapid.Uint64Range(n.applied, uint64(len(s.log))).Draw(t, "to"))
		}
	case "freeze":
		n.frozen = rapid.Bool().Draw(t, "frozen")
	case "elect":
		if !n.frozen && rapid.IntRange(0, 3).Draw(t, "rare") == 0 {
			s.elect(n)
		}
	case "begin":
		if l.runs() {
			s.begin(l)
		}
	case "restart":
		if rapid.IntRange(0, 5).Draw(t, "rare") == 0 {
			s.restart(n)
		}
	case "install":
		if !n.frozen {
			s.install(n)
		}
	case "publish":
		s.stepPublish(n)
	}
	s.check()
}

var simSteps = []string{
	"time", "time", "time", "beat", "beat", "beat", "spread", "spread", "attempt", "attempt", "renew", "report", "arrive", "arrive", "flush", "lose", "answer", "answer",
	"tell", "tell", "expire", "expire", "down", "down", "commit", "commit", "apply", "install", "freeze", "elect", "begin", "begin", "restart", "publish", "publish", "publish",
}

func TestLeasesHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t)
		for range rapid.IntRange(100, 400).Draw(t, "steps") {
			s.step()
		}
	})
}
