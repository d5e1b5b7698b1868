package shard

import (
	"cmp"
	"container/heap"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// retained is the retained message of one topic whose slot is in this shard
// (MQTT 5 §3.3.1.3). Writers are ordered by the log: it is a register.
type retained struct {
	topic string
	body  *body
	place int // in Machine.fading, from 1; 0 if it never expires
	tracked
}

// retain sets the retained message of a topic, or clears it if the payload is
// empty ([MQTT-3.3.1-6], [MQTT-3.3.1-7]) or nothing is left of its Message
// Expiry Interval. *b is its body, if it is stored already or is now. It reports
// false if the register is full.
func (m *Machine) retain(b **body, message *shoalpb.Message) bool {
	old, _ := m.retained.Lookup(message.Topic)
	expired := message.ExpiryMs != nil && *message.ExpiryMs == 0 || *b != nil && (*b).expired(m.clock)
	switch {
	case len(message.Payload) == 0 || expired:
		if old != nil {
			m.unretain(old)
		}
		return true
	case old == nil && m.retained.Len() >= m.cfg.Retained:
		return false
	}
	r := old
	if r == nil {
		r = &retained{topic: strings.Clone(message.Topic)}
		m.retained.Set(r.topic, r)
	}
	m.touch(r)
	was := r.body
	r.body = m.register(b, message)
	m.gauges.retainedBytes += r.body.bytes()
	if was != nil {
		m.unregister(was)
	}
	m.fade(r)
	return true
}

// retainCommand takes a Retain of a node or an outbox.
func (m *Machine) retainCommand(c *shoalpb.Retain) *shoalpb.Answer {
	var b *body
	if !m.retain(&b, c.Message) {
		return refuse(shoalpb.Code_CODE_QUOTA)
	}
	return nil
}

// unretain clears a register.
func (m *Machine) unretain(r *retained) {
	m.forget(r)
	m.retained.Delete(r.topic)
	if r.place > 0 {
		heap.Remove(&m.fading, r.place-1)
	}
	m.unregister(r.body)
}

// register adds a register's reference to the body in *b, which is made if it is
// missing: retained messages stay in memory. Those that get here are there: new,
// or due.
func (m *Machine) register(b **body, message *shoalpb.Message) *body {
	m.use(b, message).marks |= isRegister
	return *b
}

// unregister takes it back. What queues refer to may leave memory from now on.
func (m *Machine) unregister(b *body) {
	m.gauges.retainedBytes -= b.bytes()
	b.marks &^= isRegister
	if b.inFile == inFile {
		m.resident.add(b)
	}
	m.drop(b)
}

func (r *retained) key() (bucket, name string, number uint64) { return bucketRetained, r.topic, 0 }

func (r *retained) row(use func(*body)) []byte {
	use(r.body)
	return encode(&shoalpb.RetainedRow{Body: r.body.seq, Topic: nameInside(r.topic)})
}

// fading is a heap of the retained messages with a Message Expiry Interval. Its
// order is total, as that of deadlines.
type fading []*retained

func (f fading) Len() int { return len(f) }

func (f fading) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(f[i].body.until, f[j].body.until), strings.Compare(f[i].topic, f[j].topic)) < 0
}

func (f fading) Swap(i, j int) {
	f[i], f[j] = f[j], f[i]
	f[i].place, f[j].place = i+1, j+1
}

func (f *fading) Push(x any) {
	r := x.(*retained)
	*f = append(*f, r)
	r.place = len(*f)
}

func (f *fading) Pop() any {
	last := len(*f) - 1
	r := (*f)[last]
	r.place = 0
	(*f)[last] = nil
	*f = (*f)[:last]
	return r
}

// fade puts r where it belongs in the heap, after its body has changed.
func (m *Machine) fade(r *retained) {
	switch expires := r.body.until != never; {
	case expires && r.place == 0:
		heap.Push(&m.fading, r)
	case expires:
		heap.Fix(&m.fading, r.place-1)
	case r.place > 0:
		heap.Remove(&m.fading, r.place-1)
	}
	if r.place == 1 && m.now.eff != nil {
		m.now.eff.DeadlineMoved = true
	}
}

// fadeOut clears a page of the registers whose messages have expired.
func (m *Machine) fadeOut() {
	for n := 0; n < deadlinePage && len(m.fading) > 0 && m.fading[0].body.until <= m.clock; n++ {
		m.counters.RetainedExpired++
		m.unretain(m.fading[0])
	}
}

// Retained visits the retained messages whose topics match filter and follow
// after, in order of their topics, with what is left at now of their Message
// Expiry Intervals; what has expired is left out. Messages are shared: read
// only. If there may be more, though yield did not end the visit, it begins
// behind place: a visit looks at a bounded number of topics.
func (m *Machine) Retained(filter, after string, now uint64, yield func(*shoalpb.Message) bool) (place string, more bool) {
	return m.retained.MatchNamesAfter(filter, after, retainedScan, func(_ string, r *retained) bool {
		return r.body.expired(now) || yield(r.body.remaining(now))
	})
}

// retainedRow restores one register.
func (r *restorer) retainedRow(k, v []byte) error {
	row := &shoalpb.RetainedRow{}
	if err := decode(v, row); err != nil {
		return err
	}
	name, err := nameOf(k, row.Topic)
	if err != nil {
		return err
	}
	x := &retained{topic: name}
	if x.body, err = r.use(row.Body); err != nil {
		return err
	}
	r.m.retained.Set(x.topic, x)
	r.m.gauges.retainedBytes += x.body.bytes()
	r.m.fade(x)
	return nil
}
