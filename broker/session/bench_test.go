package session

import "testing"

func BenchmarkQoS1(b *testing.B) {
	o := NewOutbound(32, 0, 0)
	m := message(1)
	b.ReportAllocs()
	for seq := uint64(1); b.Loop(); seq++ {
		o.Deliver(Delivery{Seq: seq, QoS: 1, Message: m})
		s, _ := o.Next()
		if _, ok := o.Puback(s.ID); !ok {
			b.Fatal(seq)
		}
	}
}

// A full window, answered in order.
func BenchmarkQoS1Window(b *testing.B) {
	o := NewOutbound(32, 0, 1000)
	m := message(1)
	for range 64 {
		o.Enqueue(Delivery{QoS: 1, Message: m})
	}
	for range 32 {
		o.Next()
	}
	b.ReportAllocs()
	for seq := uint64(1); b.Loop(); seq++ {
		o.Enqueue(Delivery{QoS: 1, Message: m})
		o.Puback(PacketID(seq))
		if _, ok := o.Next(); !ok {
			b.Fatal(seq)
		}
	}
}

// The first message is never answered: all others leave gaps.
func BenchmarkQoS1Gaps(b *testing.B) {
	o := NewOutbound(32, 0, 0)
	m := message(1)
	o.Deliver(Delivery{Seq: 1, QoS: 1, Message: m})
	o.Next()
	b.ReportAllocs()
	for i, seq := 0, uint64(2); b.Loop(); i, seq = i+1, seq+1 {
		if seq%65535 == 1 { // the identifier in use: the shard would wait
			o = NewOutbound(32, 0, 0)
		}
		o.Deliver(Delivery{Seq: seq, QoS: 1, Message: m})
		s, _ := o.Next()
		o.Puback(s.ID)
	}
}

func BenchmarkQoS2(b *testing.B) {
	o := NewOutbound(32, 0, 0)
	m := message(1)
	b.ReportAllocs()
	for seq := uint64(1); b.Loop(); seq++ {
		o.Deliver(Delivery{Seq: seq, QoS: 2, Message: m})
		s, _ := o.Next()
		o.Pubrec(s.ID, false)
		o.Released(seq)
		o.Next()
		if _, ok := o.Pubcomp(s.ID); !ok {
			b.Fatal(seq)
		}
	}
}

func BenchmarkInboundQoS2(b *testing.B) {
	in := NewInbound(32)
	b.ReportAllocs()
	for id := uint16(1); b.Loop(); id++ {
		in.Publish(2, id, false)
		in.Answered(2, id, false)
		in.Pubrel(id)
		in.Completed(id, true)
	}
}

func BenchmarkAckOrder(b *testing.B) {
	var order AckOrder[uint16]
	b.ReportAllocs()
	for b.Loop() {
		x, y := order.Push(), order.Push()
		order.Done(y, 2)
		order.Done(x, 1)
		order.Pop()
		order.Pop()
	}
}
