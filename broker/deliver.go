package broker

import (
	"sync"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Deliver is part of Local: it hands m to the transient subscribers here, one
// copy for each ([MQTT-3.3.4-2] to [MQTT-3.3.4-4]), and one to a member of each
// Shared Subscription picked.
func (b *Broker) Deliver(m *shoalpb.Message, picks []*shoalpb.Pick) {
	if len(picks) == 0 || !picks[0].Only {
		b.deliverAll(m)
	}
	for _, p := range picks {
		b.deliverShared(m, p)
	}
}

// deliverAll hands m to all that match by themselves.
func (b *Broker) deliverAll(m *shoalpb.Message) {
	targets, stamp := b.subs.match(m.Topic)
	if len(targets) == 0 {
		return
	}
	var live *liveMark
	if m.Retain {
		live = &liveMark{m, stamp}
	}
	f := newFanout(m)
	defer f.free()
	matched := uint64(0)
	for i := range targets {
		t := &targets[i]
		g := t.of(m.Publisher)
		if g == nil {
			continue
		}
		matched++
		qos := min(uint8(m.Qos), g.qos)
		if qos == 0 {
			t.conn.deliver(f, m.Retain && g.retain, g.ids, live)
		} else {
			t.conn.queue(session.Delivery{QoS: qos, Retain: m.Retain && g.retain, Identifiers: g.ids, Message: m}, live)
		}
	}
	b.metrics.matched.Add(matched)
}

// fanout encodes a QoS 0 delivery once for each form that subscribers need.
type fanout struct {
	message *shoalpb.Message
	publish packet.Publish
	// forms by RETAIN and whether the version is 5; empty until needed.
	forms   [2][2][]byte
	scratch []byte
}

var fanouts = sync.Pool{New: func() any { return new(fanout) }}

func newFanout(m *shoalpb.Message) *fanout {
	f := fanouts.Get().(*fanout)
	f.reset(m)
	return f
}

func (f *fanout) reset(m *shoalpb.Message) {
	f.message = m
	for i := range f.forms {
		for j := range f.forms[i] {
			f.forms[i][j] = f.forms[i][j][:0]
		}
	}
}

func (f *fanout) free() {
	f.message, f.publish = nil, packet.Publish{}
	for i := range f.forms {
		for j := range f.forms[i] {
			if cap(f.forms[i][j]) > keptOutputBytes {
				f.forms[i][j] = nil
			}
		}
	}
	fanouts.Put(f)
}

// encode returns the PUBLISH of QoS 0, valid until the next call. It is empty if
// it cannot be written at all.
func (f *fanout) encode(v packet.Version, retain bool, ids []uint32) []byte {
	if v == packet.V5 && len(ids) > 0 {
		f.scratch = f.write(f.scratch[:0], v, retain, ids)
		return f.scratch
	}
	form := &f.forms[number(retain)][number(v == packet.V5)]
	if len(*form) == 0 {
		*form = f.write(*form, v, retain, nil)
	}
	return *form
}

func (f *fanout) write(dst []byte, v packet.Version, retain bool, ids []uint32) []byte {
	f.publish = packet.Publish{Retain: retain, SubscriptionIDs: ids}
	fillPublish(&f.publish, f.message)
	return f.publish.Append(dst, v)
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// deliver puts a PUBLISH of QoS 0 into the output, or drops and counts it.
func (c *conn) deliver(f *fanout, retain bool, ids []uint32, live *liveMark) {
	c.mu.Lock()
	value := c.isReplayValue(live)
	if c.deliverLocked(f, retain || value, ids) {
		c.noteLive(live, value)
	}
	c.unlock()
}

func (c *conn) deliverLocked(f *fanout, retain bool, ids []uint32) bool {
	m := &c.broker.metrics
	if c.phase.Load() != serving {
		m.dropped[dropClosed].Add(1)
		return false
	}
	if c.restricted() && c.withheld(f.message) {
		return false
	}
	if ms := f.message.ExpiryMs; ms != nil && *ms == 0 { // [MQTT-3.3.2-5]
		m.dropped[dropExpired].Add(1)
		return false
	}
	if c.sentAliases != nil { // nobody else gets the same bytes
		p := packet.Publish{Retain: retain, SubscriptionIDs: ids}
		fillPublish(&p, f.message)
		return c.outputHasRoom(p.Size(c.version)) && c.sendQoS0(&p)
	}
	wire := f.encode(c.version, retain, ids)
	switch {
	case len(wire) == 0 || c.maxPacket > 0 && len(wire) > int(c.maxPacket): // [MQTT-3.1.2-24]
		m.dropped[dropTooLarge].Add(1)
		return false
	case !c.outputHasRoom(len(wire)):
		return false
	}
	out := c.output()
	out.b = append(out.b, wire...)
	c.appended(packet.TypePublish, len(wire))
	m.delivered[0].Add(1)
	return true
}

// outputHasRoom tells whether a PUBLISH of QoS 0 fits into the output; if not it
// is counted as dropped. mu is held.
func (c *conn) outputHasRoom(size int) bool {
	switch {
	case c.pending == 0:
		return true
	case c.pending+size > c.broker.config.MaxOutputBytes:
		c.broker.metrics.dropped[dropOutputFull].Add(1)
	case c.broker.memory.short(memoryDrop):
		c.broker.metrics.dropped[dropMemory].Add(1)
	default:
		return true
	}
	return false
}

// sendQoS0 puts a PUBLISH of QoS 0 into the output, or counts it as too large. mu
// is held.
func (c *conn) sendQoS0(p *packet.Publish) bool {
	ok := c.appendPublish(p)
	if !ok {
		c.broker.metrics.dropped[dropTooLarge].Add(1)
	}
	return ok
}

// queue takes a delivery of QoS 1 or 2 to a transient session.
func (c *conn) queue(d session.Delivery, live *liveMark) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() != serving {
		c.broker.metrics.dropped[dropClosed].Add(1)
		return
	}
	value := c.isReplayValue(live)
	d.Retain = d.Retain || value
	if !c.withheld(d.Message) && c.enqueue(d) {
		c.noteLive(live, value)
	}
}
