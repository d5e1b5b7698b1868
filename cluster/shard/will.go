package shard

import (
	"slices"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// The Will of a session belongs to the connection that brought it. While that
// one owns the session nothing happens; when it ends without discarding the
// Will, the Will waits for min(Will Delay Interval, Session Expiry Interval)
// with the detached session and is due then, or when the session ends.

// setWill replaces the Will by that of a new owner.
func (s *session) setWill(w *shoalpb.Will) {
	if w != nil {
		x := s.more()
		x.will, x.willConn = w, 0
	} else if s.extra != nil {
		s.extra.will, s.extra.willConn = nil, 0
	}
}

func (s *session) hasWill() bool { return s.extra != nil && s.extra.will != nil }

// willDelay is for how many seconds the Will of s waits.
func (s *session) willDelay() uint32 { return min(s.extra.will.DelayS, s.expiry) }

// leaveWill decides about the Will of a session that was detached by the end of
// its connection.
func (m *Machine) leaveWill(s *session) {
	if s.hasWill() && s.willDelay() == 0 {
		m.publishWill(s)
	}
}

// overtakeWill decides about the Will that a connection before the one that
// opens the session left. Resuming the session within the delay ends it
// ([MQTT-3.1.3-9]); the end of the session does not.
func (m *Machine) overtakeWill(s *session, resumed bool) {
	switch {
	case !s.hasWill():
	case resumed && s.willDelay() > 0:
		s.setWill(nil)
	default:
		m.publishWill(s)
	}
}

// publishWill makes the Will of a detached session due. It counts as part of
// what its connection has sent: that stays, or comes back, on the list of former
// owners until the Will is settled. s has been touched.
func (m *Machine) publishWill(s *session) {
	var b *body
	w, conn := s.extra.will, s.extra.willConn
	m.counters.Wills++
	if m.format >= stream.FormatOrder && conn != 0 && s.formerOf(conn) == nil {
		m.addFormer(s, former{conn: conn})
	}
	m.addDue(&due{body: m.use(&b, w.Message), client: s.client, conn: conn})
	s.setWill(nil)
}

// lastWill is a Will that has been dispatched: it waits for the answers of its
// targets.
type lastWill struct {
	session *session
	conn    uint64
	waiter
}

func newLastWill(s *session, conn uint64) *lastWill {
	w := &lastWill{session: s, conn: conn}
	w.of = w
	return w
}

func (w *lastWill) touched(m *Machine) { m.touch(w.session) }

func (w *lastWill) answered(m *Machine, _ pending) {
	if len(w.pending) == 0 {
		m.settleWill(w.session, w.conn)
	}
}

func (w *lastWill) row() *shoalpb.WillRow {
	return &shoalpb.WillRow{Conn: w.conn, Pending: pendingRows(w.pending)}
}

// settleWill takes a connection off the list of former owners whose Will all
// targets have answered, or that has discarded it. One that has not drained
// stays.
func (m *Machine) settleWill(s *session, conn uint64) {
	f := s.formerOf(conn)
	if f == nil {
		return
	}
	m.touch(s)
	f.will = nil
	if f.process != nil {
		return
	}
	s.extra.former = slices.DeleteFunc(s.extra.former, func(f former) bool { return f.conn == conn })
	m.formerLeft(s)
}

// discardWill takes back the Will of a connection that has lost its session
// before its DISCONNECT came here.
func (m *Machine) discardWill(c *shoalpb.Close) {
	if d := m.due.wills[c.Conn]; d != nil && d.client == c.Client {
		m.removeDue(d)
		m.drop(d.body)
		m.settleWill(m.sessions[d.client], d.conn)
	}
}
