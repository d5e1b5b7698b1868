package shard

import shoalpb "github.com/shoalmq/shoal/proto"

// The shard's clock is part of the state: milliseconds that every entry may move
// forward, by what its leader measured. Nothing here reads another clock.

// tick notes which wall time belongs to the clock. What else a Tick is for, any
// entry does.
func (m *Machine) tick(c *shoalpb.Tick) {
	if c.WallMs != 0 {
		m.wall, m.wallClock = c.WallMs, m.clock
	}
}

// Clock is the shard's time in milliseconds.
func (m *Machine) Clock() uint64 { return m.clock }

// Anchor is the wall time, in milliseconds since 1970, that belonged to clockMs
// of the shard's clock when a majority of clocks last agreed; wallMs is 0 if
// they never did.
func (m *Machine) Anchor() (wallMs, clockMs uint64) { return m.wall, m.wallClock }

// Timed tells whether anything in the state depends on the time.
func (m *Machine) Timed() bool { return len(m.deadlines) > 0 || m.gauges.bodies > 0 }

// age is for how long b has been here, by a clock that may be ahead of the
// machine's.
func (b *body) age(now uint64) uint64 { return now - min(b.at, now) }

// expired tells that nothing is left of the Message Expiry Interval of b
// ([MQTT-3.3.2-5]).
func (b *body) expired(now uint64) bool { return b.until <= now }

// remaining is the message of b with what is left of its Message Expiry
// Interval ([MQTT-3.3.2-6]): the stored one if that is all of it, nil if it is
// not in memory.
func (b *body) remaining(now uint64) *shoalpb.Message {
	if b.message == nil || b.until == never {
		return b.message
	}
	return Remaining(b.message, b.at, now)
}

// Remaining is a message that was stored at a time of the shard's clock with
// what is left of its Message Expiry Interval now: the same one if that is all
// of it.
func Remaining(m *shoalpb.Message, at, now uint64) *shoalpb.Message {
	age := now - min(at, now)
	if m.ExpiryMs == nil || age == 0 {
		return m
	}
	left := *m.ExpiryMs - min(*m.ExpiryMs, age)
	return &shoalpb.Message{
		Topic: m.Topic, Payload: m.Payload, Properties: m.Properties, Qos: m.Qos, Retain: m.Retain,
		ExpiryMs: &left, Publisher: m.Publisher,
	}
}
