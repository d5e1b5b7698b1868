package cluster

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/shard"
)

// What a random run tells when a promise seems broken: such a run is hard to
// repeat, so it has to be understood from its output.

// event is something that is no part of any promise, for those who ask why one
// was broken.
type event struct {
	at   int64
	who  string
	text string
}

func (h *history) note(who, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event{h.now(), who, fmt.Sprintf(format, args...)})
}

// lateError is an error whose text is made when it is asked for: what is polled
// fails often before it succeeds.
type lateError func() string

func (e lateError) Error() string { return e() }

// around are the events of those who have to do with m from a second before it
// was published until a second after it was acknowledged.
func (h *history) around(subscriber string, m *told) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, e := range h.events {
		if e.who == subscriber || e.at > m.from-int64(time.Second) && e.at-int64(time.Second) < m.acked && (e.who == m.publisher || e.who == "") {
			fmt.Fprintf(&b, "\n\t%s %s: %s", at(e.at), e.who, e.text)
		}
	}
	return b.String()
}

// explain tells what the cluster has for the device.
func (d *device) explain() string {
	var b strings.Builder
	d.mu.Lock()
	if x := d.conn; x == nil {
		b.WriteString("not connected")
	} else {
		fmt.Fprintf(&b, "connected at %s, %#x, alive %v, seen %d", x.n.config.NodeID, x.link.(*link).conn, x.alive(), x.seen)
	}
	d.mu.Unlock()
	id := d.c.up()[0].shardOf(d.id)
	for _, n := range d.c.up() {
		g := n.group(id)
		if g == nil {
			continue
		}
		g.read(func(m machine) {
			s := m.(*shardMachine)
			conn := s.Conn(d.id)
			digest := m.digest()
			fmt.Fprintf(&b, "\n%s: leads %v, applied %d, digest %x, owner %#x:", n.config.NodeID, g.leads(), m.applied(), digest[:4], conn)
			s.Entries(d.id, conn, 0, 1000, 0, func(e session.Delivery, _ shard.Stored) bool {
				fmt.Fprintf(&b, " %d=%s", e.Seq, e.Message.GetPayload())
				return true
			})
		})
	}
	return b.String()
}
