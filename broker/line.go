package broker

import (
	"encoding/binary"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// One connection, one order: the effects of a connection's packets appear to
// everybody in the order in which the client sent them, although some take time.
//
//   - PUBLISH waits until every earlier SUBSCRIBE and UNSUBSCRIBE is answered, so
//     that it matches the subscriptions that they leave.
//   - SUBSCRIBE and UNSUBSCRIBE wait for each other and for the earlier messages
//     that the Link has not settled. Several of one kind go on in a pipeline.
//   - DISCONNECT waits for SUBSCRIBE and UNSUBSCRIBE. The messages before it
//     need no wait: they outlive the connection in its Link.
//
// A packet that has to wait is put into the connection's line, and so is every
// packet that must not pass it. Acknowledgements, PUBREL, PINGREQ and AUTH do not
// wait. Packets in the line have been read: they take effect even if the network
// connection ends first.
//
// The handler of these packets is the reader while the line is empty, else
// the one goroutine that works the line off. It owns what conn calls the
// handler's own.

// held is a packet in the line, with memory of its own.
type held struct {
	header packet.Header
	body   []byte
	// id is the Packet Identifier of a PUBLISH of QoS 2, else 0.
	id uint16
}

// isOrdered reports whether packets of a type may have to wait.
func isOrdered(t packet.Type) bool {
	switch t {
	case packet.TypePublish, packet.TypeSubscribe, packet.TypeUnsubscribe, packet.TypeDisconnect, packet.TypePubrel:
		return true
	}
	return false
}

// holdBack puts a packet into the line if it must wait. It is called by the
// reader.
func (c *conn) holdBack(h packet.Header, body []byte) bool {
	if c.waits.Load() == 0 && (h.Type == packet.TypePubrel || h.Type == packet.TypePublish && !c.countsExchanges(h)) {
		return false
	}
	c.mu.Lock()
	defer c.unlock()
	p := held{header: h}
	if h.Type == packet.TypePublish && h.Flags>>1&3 == 2 {
		p.id = publishID(body)
	}
	switch {
	case h.Type == packet.TypePubrel:
		if !c.isHeld(pubrelID(body)) {
			return false
		}
	case !c.lined && c.mayHandle(&p):
		return false
	}
	p.body = append([]byte(nil), body...)
	if !c.lined {
		c.lined = true
		c.waits.Add(1)
	}
	c.line = append(c.line, p)
	c.lineBytes += len(body) + askedBytes
	if c.lineBytes > maxLineBytes {
		c.paused |= pauseLine
	}
	c.workLine() // what it waited for may have ended since
	return true
}

// publishID returns the Packet Identifier of the body of a PUBLISH of QoS 2, 0
// if there is none.
func publishID(body []byte) uint16 {
	if len(body) < 2 {
		return 0
	}
	return pubrelID(body[min(len(body), 2+int(binary.BigEndian.Uint16(body))):])
}

// pubrelID returns the Packet Identifier at the beginning of a body.
func pubrelID(body []byte) uint16 {
	if len(body) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(body)
}

// isHeld reports whether a PUBLISH of QoS 2 waits in the line: its PUBREL must not
// pass it. mu is held.
func (c *conn) isHeld(id uint16) bool {
	for i := range c.line {
		if c.line[i].id == id && id != 0 {
			return true
		}
	}
	return false
}

// mayHandle reports whether a packet may be handled now: nothing that it must not
// pass is under way. mu is held.
func (c *conn) mayHandle(p *held) bool {
	switch p.header.Type {
	case packet.TypePublish:
		return c.subscribing+c.unsubscribing == 0 && (p.id == 0 || !c.countsExchanges(p.header) || c.hasExchange(p.id))
	case packet.TypeSubscribe:
		return c.unsubscribing == 0 && c.unsettled() == 0
	case packet.TypeUnsubscribe:
		return c.subscribing == 0 && c.unsettled() == 0
	case packet.TypeDisconnect:
		return c.subscribing+c.unsubscribing == 0
	}
	return true
}

// countsExchanges reports whether a PUBLISH begins an exchange that is counted here:
// an MQTT 3 client knows no Receive Maximum that would bound its exchanges of
// QoS 2.
func (c *conn) countsExchanges(h packet.Header) bool {
	return h.Type == packet.TypePublish && h.Flags>>1&3 == 2 && c.version != packet.V5
}

// hasExchange reports whether a QoS 2 exchange may begin, or goes on already. mu
// is held.
func (c *conn) hasExchange(id uint16) bool {
	return c.incoming == nil || c.incoming.session.Exchanges() < maxExchanges || c.incoming.session.Knows(id)
}

// unsettled counts the messages that are handed to the Link, and whose place
// before what follows is not certain yet. mu is held.
func (c *conn) unsettled() int {
	if c.incoming == nil {
		return c.retaining
	}
	return c.retaining + c.incoming.unanswered()
}

// workLine has the line worked off if its first packet may be handled now. mu is
// held. It is called when anything ends that a packet may have waited for.
func (c *conn) workLine() {
	if c.lineWorked || len(c.line) == 0 || !c.mayWork() {
		return
	}
	c.lineWorked = true
	c.spawn(c.handleLine)
}

// mayWork reports whether the first packet of the line may be handled now. What
// the client has sent before its end is bounded and pauses for nothing. mu is
// held.
func (c *conn) mayWork() bool {
	return c.mayHandle(&c.line[0]) && (c.paused&pauseWork == 0 || c.phase.Load() >= closing)
}

// handleLine handles packets of the line until one has to wait.
func (c *conn) handleLine() {
	r := &reader{}
	c.broker.wake.enter()
	defer c.broker.wake.leave()
	for {
		p, ok := c.nextHeld()
		if !ok {
			return
		}
		if err := c.handleServing(r, p.header, p.body); err != nil {
			c.refuse(err)
			c.dropLine()
		}
	}
}

// nextHeld takes the first packet that may be handled. Without one it ends the
// work.
func (c *conn) nextHeld() (p held, ok bool) {
	c.mu.Lock()
	defer c.unlock()
	switch {
	case len(c.line) == 0:
		c.lineWorked = false
		c.endLine()
	case !c.mayWork():
		c.lineWorked = false
	default:
		p, ok = c.line[0], true
		c.line[0] = held{}
		c.line = c.line[1:]
		c.lineBytes -= len(p.body) + askedBytes
		if c.paused&pauseLine != 0 && c.lineBytes <= maxLineBytes/2 {
			c.seen.Store(time.Now().UnixNano()) // it could not be heard
			c.resume(pauseLine)
		}
	}
	return p, ok
}

// endLine makes the reader the handler again. mu is held.
func (c *conn) endLine() {
	if !c.lined {
		return
	}
	c.line, c.lined = nil, false
	c.waits.Add(-1)
	if c.lineOver != nil {
		close(c.lineOver)
		c.lineOver = nil
	}
}

// dropLine gives up what has not been handled: behind an error of the client
// nothing counts, and without its process nothing can.
func (c *conn) dropLine() {
	c.mu.Lock()
	defer c.unlock()
	for i := range c.line {
		if c.line[i].header.Type == packet.TypePublish {
			c.broker.metrics.publishRefused[refusedEnded].Add(1)
		}
	}
	c.line, c.lineBytes = nil, 0
	if !c.lineWorked {
		c.endLine()
	}
}

// settleLine waits until what the client has sent is handled, for lineTime at
// most: the session ends, or is detached, behind it.
func (c *conn) settleLine() {
	c.mu.Lock()
	if !c.lined {
		c.mu.Unlock()
		return
	}
	over := make(chan struct{})
	c.lineOver = over
	c.unlock()
	late := time.NewTimer(lineTime)
	defer late.Stop()
	select {
	case <-over:
	case <-late.C:
		c.dropLine()
	}
}

// changeSubscriptions notes that a SUBSCRIBE or UNSUBSCRIBE, counted in *kind, is
// under way.
func (c *conn) changeSubscriptions(kind *int) {
	c.mu.Lock()
	*kind++
	c.waits.Add(1)
	c.mu.Unlock()
}

// subscriptionsChanged follows changeSubscriptions when the packet is answered. mu
// is held.
func (c *conn) subscriptionsChanged(kind *int) {
	*kind--
	c.waits.Add(-1)
	c.workLine()
}
