package session

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// client sends as MQTT 5 §4.9 tells it: with a quota that starts full, goes
// down with each PUBLISH, and up, to full at most, with each PUBACK, PUBCOMP
// and PUBREC ≥ 0x80.
type client struct {
	full, quota int
	qos1        []uint16 // PUBLISH sent, PUBACK not come
	published   []uint16 // QoS 2: PUBLISH sent, PUBREC not come
	recorded    []uint16 // QoS 2: PUBREC came, PUBREL not sent
	released    []uint16 // PUBREL sent, PUBCOMP not come
	resend      []uint16 // QoS 2: as published, by a former connection
}

func (c *client) unused(t *rapid.T) uint16 {
	used := slices.Concat(c.qos1, c.published, c.recorded, c.released, c.resend)
	return rapid.Uint16Range(1, 200).Filter(func(id uint16) bool { return !slices.Contains(used, id) }).Draw(t, "id")
}

func (c *client) regain() { c.quota = min(c.quota+1, c.full) }

// take removes an identifier from one of the client's lists.
func take(t *rapid.T, ids *[]uint16) (uint16, bool) {
	if len(*ids) == 0 {
		return 0, false
	}
	i := rapid.IntRange(0, len(*ids)-1).Draw(t, "which")
	id := (*ids)[i]
	*ids = slices.Delete(*ids, i, i+1)
	return id, true
}

// A client that keeps to its quota is never refused, over any connections; one
// that sends a single PUBLISH more always is.
func TestInboundQuota(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		full := rapid.IntRange(1, 6).Draw(t, "receive maximum")
		c := &client{full: full, quota: full}
		in := NewInbound(uint16(full))
		expect := func(t *rapid.T, got, want InboundResult) {
			if got != want {
				t.Fatalf("result %d, want %d; client %+v, used %d", got, want, c, in.Unfinished())
			}
		}
		begun := make(map[uint16]bool) // on this connection
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				qos, id, dup := rapid.Uint8Range(1, 2).Draw(t, "qos"), c.unused(t), false
				if len(c.resend) > 0 {
					qos, id, dup = 2, c.resend[0], true
				}
				if c.quota == 0 {
					expect(t, in.Publish(qos, id, dup), InboundExceeded)
					return
				}
				expect(t, in.Publish(qos, id, dup), InboundNew)
				c.resend = slices.DeleteFunc(c.resend, func(r uint16) bool { return r == id })
				c.quota--
				begun[id] = true
				if qos == 1 {
					c.qos1 = append(c.qos1, id)
				} else {
					c.published = append(c.published, id)
				}
			},
			"puback": func(t *rapid.T) {
				if id, ok := take(t, &c.qos1); ok {
					in.Answered(1, id, rapid.Bool().Draw(t, "failed"))
					c.regain()
				}
			},
			"pubrec": func(t *rapid.T) {
				id, ok := take(t, &c.published)
				if !ok {
					return
				}
				expect(t, in.Publish(2, id, true), InboundWait)
				expect(t, in.Pubrel(id), InboundUnknown)
				failed := rapid.Bool().Draw(t, "failed")
				in.Answered(2, id, failed)
				if failed {
					c.regain()
					return
				}
				expect(t, in.Publish(2, id, true), InboundRepeat)
				c.recorded = append(c.recorded, id)
			},
			"pubrel": func(t *rapid.T) {
				id, ok := take(t, &c.recorded)
				if !ok {
					return
				}
				want := InboundAsk
				if begun[id] {
					want = InboundKnown
				}
				expect(t, in.Pubrel(id), want)
				expect(t, in.Publish(2, id, false), InboundInUse)
				c.released = append(c.released, id)
			},
			"pubcomp": func(t *rapid.T) {
				if id, ok := take(t, &c.released); ok {
					in.Completed(id, true)
					delete(begun, id)
					c.regain()
				}
			},
			"reconnect": func(t *rapid.T) {
				// What has no PUBREC is published again, what has no PUBCOMP is
				// released again.
				c = &client{full: full, quota: full, recorded: append(c.recorded, c.released...),
					resend: append(c.published, c.resend...)}
				in, begun = NewResumedInbound(uint16(full)), make(map[uint16]bool)
			},
			"": func(t *rapid.T) {
				if in.Unfinished() != c.full-c.quota {
					t.Fatalf("used %d, client's quota %d of %d", in.Unfinished(), c.quota, c.full)
				}
			},
		})
	})
}

func TestAckOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var order AckOrder[int]
		var pending []Token
		pushed, popped := 0, 0
		done := make(map[int]bool)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(*rapid.T) { pending = append(pending, order.Push()); pushed++ },
			"done": func(t *rapid.T) {
				if len(pending) == 0 {
					return
				}
				i := rapid.IntRange(0, len(pending)-1).Draw(t, "which")
				token := pending[i]
				pending = slices.Delete(pending, i, i+1)
				done[int(token)] = true
				if got, want := order.Done(token, int(token)), int(token) == popped; got != want {
					t.Fatalf("Done(%d) = %v with %d popped", token, got, popped)
				}
				if order.Done(token, -1) {
					t.Fatalf("Done(%d) twice", token)
				}
			},
			"pop": func(t *rapid.T) {
				got, ok := order.Pop()
				if ok != done[popped] || ok && got != popped {
					t.Fatalf("Pop = %d, %v, want %d, %v", got, ok, popped, done[popped])
				}
				if ok {
					popped++
				}
			},
			"": func(t *rapid.T) {
				if order.Len() != pushed-popped {
					t.Fatalf("Len %d, want %d", order.Len(), pushed-popped)
				}
			},
		})
	})
}

// A client that invents exchanges to end gets no more quota by it than there
// are identifiers.
func TestInboundInventedExchanges(t *testing.T) {
	in := NewResumedInbound(1)
	accepted := 0
	for range 3 * packetIDs {
		if in.Publish(1, 1, false) == InboundNew {
			accepted++
		}
		in.Pubrel(2)
		in.Completed(2, true)
	}
	if accepted != 1+packetIDs {
		t.Errorf("%d PUBLISH packets unanswered", accepted)
	}
}
