package broker

import (
	"errors"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/session"
)

// answer is a PUBACK or PUBREC that waits for its message to be committed, and
// then for those of earlier messages.
type answer struct {
	qos  uint8
	id   uint16
	code packet.Code
	// counted: the session recorded the message and has to know of the answer.
	counted bool
	size    int       // bytes of the payload
	at      time.Time // the PUBLISH came
}

// published takes the Link's answer for a message of QoS 1 or 2.
func (c *conn) published(a answer, token session.Token, err error) {
	c.mu.Lock()
	defer c.unlock()
	if c.freed {
		return
	}
	if errors.Is(err, session.ErrQueueFull) && c.version != packet.V5 {
		// MQTT 3 has no word for it. To close the connection would be to end, again
		// and again, a publisher whose message everybody else has got. The copy is
		// counted where it was rejected.
		err = nil
	}
	if err != nil {
		code, ok := errorCode(err)
		if !ok || c.version != packet.V5 {
			c.fail(err) // its answer does not leave, but packets may wait for it
		}
		a.code = code
	}
	in := c.incoming
	order := in.order(a.qos)
	if order.Done(token, a) {
		c.sendAnswers(in, order)
	}
}

// answerAtOnce answers a PUBLISH that needs no commit, in its turn. mu is held.
func (c *conn) answerAtOnce(in *incoming, a answer) {
	if a.code.Failed() && c.version != packet.V5 {
		c.endLocked(ending{code: a.code, farewell: true, why: "packet identifier in use"})
		return
	}
	order := in.order(a.qos)
	if order.Done(order.Push(), a) {
		c.sendAnswers(in, order)
	}
}

// sendAnswers is the one place where PUBACK and PUBREC are written: the ones
// whose turn has come. mu is held.
func (c *conn) sendAnswers(in *incoming, order *session.AckOrder[answer]) {
	for {
		a, ok := order.Pop()
		if !ok {
			break
		}
		if a.counted {
			in.session.Answered(a.qos, a.id, a.code.Failed())
			in.bytes -= a.size
			c.broker.metrics.ackDelays[a.qos-1].observe(time.Since(a.at))
		}
		t := packet.TypePuback
		if a.qos == 2 {
			t = packet.TypePubrec
		}
		c.appendAck(t, a.id, a.code)
	}
	c.workLine()
	c.publishOn()
}

// appendAck puts PUBACK, PUBREC, PUBREL or PUBCOMP into the output. mu is held.
func (c *conn) appendAck(t packet.Type, id uint16, code packet.Code) {
	c.append(t, func(dst []byte) []byte {
		p := packet.Ack{Type: t, PacketID: id, Code: code}
		return p.Append(dst, c.version)
	})
}

// handlePubrel is the publisher's third step of QoS 2 ([MQTT-4.3.3-11]).
func (c *conn) handlePubrel(id uint16) {
	c.mu.Lock()
	if c.phase.Load() != serving {
		c.unlock()
		return
	}
	in := c.incomingState()
	ask := false
	switch in.session.Pubrel(id) {
	case session.InboundKnown:
		if ask = c.durable; !ask {
			in.session.Completed(id, true)
			c.appendAck(packet.TypePubcomp, id, packet.CodeSuccess)
			c.workLine()
		}
	case session.InboundAsk:
		ask = true
	case session.InboundUnknown:
		c.appendAck(packet.TypePubcomp, id, packet.CodePacketIdentifierNotFound)
	}
	c.unlock()
	if ask {
		c.asking(askedBytes)
		c.link.Released(id, func(known bool, err error) {
			c.completed(id, known, err)
			c.answered(askedBytes)
		})
	}
}

// completed takes the Link's answer for a PUBREL.
func (c *conn) completed(id uint16, known bool, err error) {
	c.mu.Lock()
	defer c.unlock()
	if c.phase.Load() != serving {
		return
	}
	if err != nil {
		c.fail(err)
		return
	}
	code := packet.CodeSuccess
	if !c.incoming.session.Completed(id, known) {
		code = packet.CodePacketIdentifierNotFound
	}
	c.appendAck(packet.TypePubcomp, id, code)
	c.workLine()
}

// fail ends the connection because the Cluster could not do what the client
// waits for. Nothing it waits for is acknowledged. mu is held.
func (c *conn) fail(err error) {
	code := packet.CodeServerUnavailable
	if errors.Is(err, session.ErrNotOwner) {
		code = packet.CodeSessionTakenOver
	} else if c, ok := errorCode(err); ok {
		code = c
	}
	c.endLocked(ending{code: code, farewell: true, why: err.Error()})
}

// errorCode is the Reason Code for an error that an acknowledgement can carry.
func errorCode(err error) (packet.Code, bool) {
	switch {
	case errors.Is(err, session.ErrQuota), errors.Is(err, session.ErrQueueFull):
		return packet.CodeQuotaExceeded, true
	case errors.Is(err, session.ErrBusy):
		return packet.CodeServerBusy, true
	case errors.Is(err, session.ErrIDInUse):
		return packet.CodePacketIdentifierInUse, true
	}
	return 0, false
}
