package shard

import (
	"encoding/binary"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// due is a message whose time has come and that nobody has matched yet: a Will,
// or one of a Shared Subscription whose member is gone. Routes are no part of a
// shard's state, so the leader matches it and proposes a Dispatch.
type due struct {
	id   uint64
	body *body
	// client and conn name the connection whose Will it is; conn is 0 for
	// others. It waits while that connection is a former owner: a DISCONNECT
	// that discards it may be on its way ([MQTT-3.1.2-10]), and so may what the
	// client published before.
	client string
	conn   uint64
	// pick, if not nil, is the Shared Subscription that it goes to alone.
	pick *shoalpb.Pick
	tracked
}

// dueList holds the due messages by number. Numbers are never used twice, so a
// Dispatch that comes late finds nothing.
type dueList struct {
	next  uint64 // number of the next one
	base  uint64 // number of list[0]
	list  []*due // nil where one is gone; neither end is
	count int
	wills map[uint64]*due // by conn
}

func newDueList() dueList { return dueList{next: 1, base: 1, wills: map[uint64]*due{}} }

// add puts d, whose number is not below that of any other, into the list.
func (l *dueList) add(d *due) {
	if len(l.list) == 0 {
		l.base = d.id
	}
	for l.base+uint64(len(l.list)) < d.id {
		l.list = append(l.list, nil)
	}
	l.list = append(l.list, d)
	l.count++
	if d.conn != 0 {
		l.wills[d.conn] = d
	}
}

// find returns the due message of a number, or nil.
func (l *dueList) find(id uint64) *due {
	if id < l.base || id-l.base >= uint64(len(l.list)) {
		return nil
	}
	return l.list[id-l.base]
}

func (l *dueList) remove(d *due) {
	l.list[d.id-l.base] = nil
	l.count--
	delete(l.wills, d.conn)
	for len(l.list) > 0 && l.list[0] == nil {
		l.list = l.list[1:]
		l.base++
	}
	for len(l.list) > 0 && l.list[len(l.list)-1] == nil {
		l.list = l.list[:len(l.list)-1]
	}
}

// addDue makes a message due. The list takes over the caller's reference to
// d.body.
func (m *Machine) addDue(d *due) {
	d.id = m.due.next
	m.due.next++
	m.due.add(d)
	if d.pick == nil {
		m.pin(d.body)
	}
	m.touch(d)
	m.dueGrew()
}

// dueGrew tells the leader that there may be something to dispatch.
func (m *Machine) dueGrew() {
	if m.now.eff != nil {
		m.now.eff.DueGrew = true
	}
}

// removeDue takes d off the list; the caller gets its reference to d.body.
func (m *Machine) removeDue(d *due) {
	m.forget(d)
	m.due.remove(d)
	if d.pick == nil {
		m.unpin(d.body)
	}
}

// waits tells that d is the Will of a connection that may still discard it.
func (m *Machine) waits(d *due) bool {
	if d.conn == 0 {
		return false
	}
	f := m.sessions[d.client].formerOf(d.conn)
	return f != nil && f.process != nil
}

// Due visits the messages that may be dispatched now, the oldest first. What
// it yields is shared: read only.
func (m *Machine) Due(yield func(Due) bool) {
	for _, d := range m.due.list {
		if d != nil && !m.waits(d) && !yield(Due{d.id, d.body.message, d.pick, d.body.qos}) {
			return
		}
	}
}

// Due is a message that is to be dispatched.
type Due struct {
	ID uint64
	// Message is nil if Pick is not and it has left memory.
	Message *shoalpb.Message
	// Pick, if not nil, is the Shared Subscription that it goes to alone.
	Pick *shoalpb.Pick
	// QoS with which it was published.
	QoS uint8
}

// dispatch sends a due message on its way, once: a second Dispatch of it, or one
// that was overtaken by a DISCONNECT, finds nothing.
func (m *Machine) dispatch(c *shoalpb.Dispatch) {
	d := m.due.find(c.Due)
	if d == nil {
		return
	}
	m.removeDue(d)
	b := d.body
	if d.pick != nil {
		m.dispatchPick(d, c.Targets)
		m.drop(b)
		return
	}
	f := m.sessions[d.client].formerOf(d.conn)
	if f == nil { // nobody waits for it
		m.distributeDue(b, c, nil)
		m.drop(d.body)
		return
	}
	w := newLastWill(m.sessions[d.client], d.conn)
	m.distributeDue(b, c, &w.waiter)
	m.drop(d.body)
	if len(w.pending) == 0 {
		m.settleWill(w.session, w.conn)
		return
	}
	m.touch(w.session)
	w.session.formerOf(d.conn).will = w
}

func (m *Machine) distributeDue(b *body, c *shoalpb.Dispatch, w *waiter) {
	m.distribute(&b, b.message, c.Targets, c.Picks, w)
	if c.Retain != 0 {
		m.distributeRetained(&b, b.message, c.Retain, w)
	}
}

// dispatchPick gives a message to a member at the first of targets. Its contents
// may have left memory.
func (m *Machine) dispatchPick(d *due, targets []*shoalpb.Target) {
	if len(targets) == 0 {
		m.counters.NoMember++
		return
	}
	b := d.body
	m.distribute(&b, b.message, targets[:1], []*shoalpb.TargetPick{{Target: targets[0], Pick: d.pick}}, nil)
}

func (d *due) key() (bucket, name string, number uint64) {
	return bucketDue, string(binary.BigEndian.AppendUint64(nil, d.id)), 0
}

func (d *due) row(use func(*body)) []byte {
	use(d.body)
	return encode(&shoalpb.DueRow{Body: d.body.seq, Client: d.client, Conn: d.conn, Pick: d.pick})
}
