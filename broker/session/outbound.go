package session

// Outbound is the queue and the window of the QoS 1 and 2 deliveries of one
// connection, from the server to the client.
//
// Window: it counts what is sent and not finished, that is PUBLISH packets
// without PUBACK, PUBCOMP or PUBREC ≥ 0x80, so it stays taken over a successful
// PUBREC ([MQTT-4.9.0-1]), and PUBREL packets owed from a former connection,
// whose PUBLISH went out there. When a resumed session owes more PUBRELs than
// the new connection's window is wide, they go all the same, since a PUBREL
// needs no quota; PUBLISH packets wait until the sum is below the window
// ([MQTT-3.3.4-9], [MQTT-4.9.0-2]).
//
// Order: PUBLISH packets leave in the order of Seq, which is the original order
// also when they are sent again ([MQTT-4.6.0-1], [MQTT-4.6.0-6]); PUBRELs in
// the order of their PUBRECs ([MQTT-4.6.0-4]), before any waiting PUBLISH.
// Nothing is sent twice on one connection ([MQTT-4.4.0-1]) unless a client asks
// with a second PUBREC.
//
// Every operation takes O(1), or O(log n) where finished entries lie between
// unfinished ones; memory is the ring of unfinished entries.
type Outbound struct {
	// entries ascend in Seq. The first one is never finished.
	entries ring[entry]
	// unsent is the index of the first entry that can still be queued.
	unsent int
	// rels holds the Seq of each entry whose PUBREL has not been sent, in the
	// order of their PUBRECs.
	rels ring[uint64]

	finished int // entries in stage finished
	inFlight int // entries in any stage between
	queued   int // entries in stage queued
	// queuedBytes are the contents of the entries in stage queued.
	queuedBytes int

	window   int
	maxQueue int
	sentHi   uint64
	// taken is the highest Seq that Deliver or Enqueue took.
	taken uint64
}

// entry is a delivery and how far it has come.
type entry struct {
	Delivery
	stage stage
}

type stage uint8

const (
	queued     stage = iota // PUBLISH not sent by this connection
	published               // PUBLISH sent
	releasing               // PUBREC came, to be committed before PUBREL
	released                // committed, PUBREL not sent by this connection
	completing              // PUBREL sent
	finished
)

// Send is a packet to write: PUBLISH, or PUBREL if Pubrel is set (then only ID
// and Seq mean anything).
type Send struct {
	Delivery
	// ID is the Packet Identifier, PacketID(Seq).
	ID     uint16
	Pubrel bool
	// Dup is the DUP flag ([MQTT-3.3.1-1]).
	Dup bool
}

// NewOutbound begins a connection. window is the smaller of the client's
// Receive Maximum and our own bound, ≥ 1. sentHi is Opened.SentHi, 0 for a
// transient session. maxQueue bounds what Enqueue lets wait; what Deliver takes
// is bounded by its shard.
func NewOutbound(window uint16, sentHi uint64, maxQueue int) *Outbound {
	return &Outbound{window: int(window), sentHi: sentHi, maxQueue: maxQueue}
}

// InFlight is the number of exchanges that occupy the window.
func (o *Outbound) InFlight() int { return o.inFlight }

// Queued is the number of messages that Next has not returned.
func (o *Outbound) Queued() int { return o.queued }

// QueuedBytes is what their topics, payloads and properties take.
func (o *Outbound) QueuedBytes() int { return o.queuedBytes }

// Deliver takes an entry of a durable session's queue; entries come ascending
// in Seq, with gaps. It returns false, and ignores d, for a Seq that is not
// above all it took before: after a change of the shard's leader entries come
// again. QoS 0 entries (Seq 0) are not for Outbound and ignored too.
func (o *Outbound) Deliver(d Delivery) bool {
	if d.Seq <= o.taken {
		return false
	}
	o.taken = d.Seq
	if !d.Released {
		o.enqueue(d)
		return true
	}
	o.entries.push(entry{Delivery: Delivery{Seq: d.Seq, QoS: d.QoS}, stage: released})
	o.rels.push(d.Seq)
	o.inFlight++
	return true
}

// Enqueue takes a message for a transient session and numbers it itself,
// ignoring d.Seq. It returns false, and drops d, if maxQueue messages wait
// already; the caller counts it.
func (o *Outbound) Enqueue(d Delivery) bool {
	if o.queued >= o.maxQueue {
		return false
	}
	o.taken++
	d.Seq, d.Released = o.taken, false
	o.enqueue(d)
	return true
}

func (o *Outbound) enqueue(d Delivery) {
	o.entries.push(entry{d, queued})
	o.queued++
	o.queuedBytes += ContentBytes(&d)
}

// ContentBytes is the size of a delivery as limits of queues count it.
func ContentBytes(d *Delivery) int {
	m := d.Message
	return len(m.GetTopic()) + len(m.GetPayload()) + len(m.GetProperties())
}

// Next returns what to write next and counts it as sent: a PUBREL that is
// allowed, else a PUBLISH if the window has room. Packet Identifiers are unused
// ones ([MQTT-2.2.1-4]): an entry waits while one a whole round of identifiers
// before it is unfinished.
func (o *Outbound) Next() (Send, bool) {
	if s, ok := o.nextPubrel(); ok {
		return s, true
	}
	if o.queued == 0 || o.inFlight >= o.window {
		return Send{}, false
	}
	e := o.nextQueued()
	if e.Seq-o.entries.at(0).Seq >= packetIDs {
		return Send{}, false
	}
	e.stage = published
	o.unsent++
	o.queued--
	o.queuedBytes -= ContentBytes(&e.Delivery)
	o.inFlight++
	return Send{Delivery: e.Delivery, ID: PacketID(e.Seq), Dup: e.Seq <= o.sentHi}, true
}

// nextQueued returns the first entry in stage queued. There is one.
func (o *Outbound) nextQueued() *entry {
	for o.entries.at(o.unsent).stage != queued {
		o.unsent++
	}
	return o.entries.at(o.unsent)
}

// nextPubrel returns the oldest PUBREL if its release is committed. A younger
// one waits for it.
func (o *Outbound) nextPubrel() (Send, bool) {
	if o.rels.len() == 0 {
		return Send{}, false
	}
	e := o.find(*o.rels.at(0))
	if e.stage != released {
		return Send{}, false
	}
	o.rels.pop()
	e.stage = completing
	return Send{Delivery: e.Delivery, ID: PacketID(e.Seq), Pubrel: true}, true
}

// Unfinished visits the deliveries that are not finished, in the order of Seq,
// as long as yield returns true; sent tells whether this connection sent the
// PUBLISH. Messages that the client has confirmed with PUBREC come without
// their content.
func (o *Outbound) Unfinished(yield func(d Delivery, sent bool) bool) {
	for i := range o.entries.len() {
		e := o.entries.at(i)
		if e.stage != finished && !yield(e.Delivery, e.stage != queued) {
			return
		}
	}
}
