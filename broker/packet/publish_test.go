package packet

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// inside reports whether part lies in the memory of whole.
func inside(part, whole []byte) bool {
	from, start := uintptr(unsafe.Pointer(unsafe.SliceData(part))), uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	return from >= start && from+uintptr(len(part)) <= start+uintptr(len(whole))
}

// Properties to forward, alone, together, and parted by others: the Forward
// block has them all, in order, and is a copy only where it has to be.
func TestForward(t *testing.T) {
	format, kind, answer := "\x01\x00", "\x03"+s("text"), "\x08"+s("r")
	data, user := "\x09"+s("\x00"), "\x26"+s("k")+s("v")
	expiry, alias, id := "\x02\x00\x00\x00\x09", "\x23\x00\x02", "\x0B\x07"
	for _, c := range []struct {
		properties []string
		forward    string
		copied     bool
	}{
		{nil, "", false},
		{[]string{expiry}, "", false},
		{[]string{user}, user, false},
		{[]string{user, format, user, data}, user + format + user + data, false},
		{[]string{expiry, kind, answer, alias, id}, kind + answer, false},
		{[]string{user, expiry, user}, user + user, true},
		{[]string{id, user, kind, expiry, format, user, alias, answer}, user + kind + format + user + answer, true},
	} {
		body := []byte(s("t") + props(c.properties...) + "payload")
		var p Publish
		for range 2 { // the second time with a used scratch
			if err := p.Decode(Header{Type: TypePublish}, body, V5); err != nil {
				t.Fatalf("%q: %v", c.properties, err)
			}
			if string(p.Forward) != c.forward || string(p.Payload) != "payload" {
				t.Errorf("%q: Forward %q, Payload %q", c.properties, p.Forward, p.Payload)
			}
			if len(p.Forward) > 0 && inside(p.Forward, body) == c.copied {
				t.Errorf("%q: copied %v", c.properties, !c.copied)
			}
			if p.HasExpiry != slices.Contains(c.properties, expiry) || p.HasAlias != slices.Contains(c.properties, alias) {
				t.Errorf("%q: %+v", c.properties, p)
			}
		}
	}
}

// The slices of a packet alias the body, and appending to one leaves the others.
func TestPublishAliases(t *testing.T) {
	body := []byte(s("topic") + id1 + props("\x26"+s("k")+s("v")) + "payload")
	before := bytes.Clone(body)
	var p Publish
	if err := p.Decode(Header{Type: TypePublish, Flags: 0x02}, body, V5); err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{p.Topic, p.Payload, p.Forward} {
		if !inside(part, body) {
			t.Errorf("%q is a copy", part)
		}
	}
	_, _ = append(p.Topic, 'x'), append(p.Forward, 'x')
	if !bytes.Equal(body, before) {
		t.Errorf("append to a slice changed the body")
	}
}

func TestParseForward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		block := anyForward(t)
		m, err := ParseForward(block)
		if err != nil {
			t.Fatal(err)
		}
		if again := m.AppendForward(nil); !bytes.Equal(again, block) {
			t.Fatalf("% x\nbecomes % x", block, again)
		}
	})
	for _, bad := range []string{"\x01\x02", "\x02\x00\x00\x00\x01", "\x23\x00\x01", "\x0B\x01", "\x03\x00", "\x99", "\x08" + s("#"), "\x03" + s("a") + "\x03" + s("a")} {
		if _, err := ParseForward([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	m, err := ParseForward(forwardBlock())
	want := MessageProperties{
		HasPayloadFormat: true, PayloadFormat: 1, HasContentType: true, ContentType: "text/plain",
		ResponseTopic: "answers/7", CorrelationData: []byte{0, 1, 2},
		UserProperties: []UserProperty{{"a", "1"}, {"a", "2"}, {"", ""}},
	}
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestSetPacketID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SampledFrom(versions).Draw(t, "version")
		p := anyPublish(t, v)
		if p.QoS == QoS0 {
			p.QoS, p.PacketID = QoS1, 1
		}
		wire := p.Append(nil, v)
		p.PacketID = anyID(t)
		SetPacketID(wire, p.PacketID)
		if want := p.Append(nil, v); !bytes.Equal(wire, want) {
			t.Fatalf("% x, want % x", wire, want)
		}
	})
}

// DUP is never written with QoS 0 [MQTT-3.3.1-2].
func TestAppendNoDupAtQoS0(t *testing.T) {
	wire := (&Publish{Dup: true, Topic: []byte("t")}).Append(nil, V311)
	if wire[0] != 0x30 {
		t.Errorf("first byte %#x", wire[0])
	}
}

// publishes are the packets that the benchmarks and the count of allocations
// decode.
func publishes() map[string][]byte {
	payload := bytes.Repeat([]byte("x"), 64)
	topic := []byte("factory/7/line/3/temperature")
	apart := append([]byte("\x26\x00\x01k\x00\x01v\x02\x00\x00\x00\x09"), forwardBlock()...)
	parted := append([]byte(s(string(topic))), counted(string(apart))...)
	return map[string][]byte{
		"v3 QoS 0":             (&Publish{Topic: topic, Payload: payload}).Append(nil, V311),
		"v5 QoS 0":             (&Publish{Topic: topic, Payload: payload}).Append(nil, V5),
		"v5 QoS 1":             (&Publish{Topic: topic, QoS: QoS1, PacketID: 7, Payload: payload}).Append(nil, V5),
		"v5 properties":        (&Publish{Topic: topic, Payload: payload, HasExpiry: true, Forward: forwardBlock()}).Append(nil, V5),
		"v5 parted properties": wireOf(0x30, append(parted, payload...)),
		"v5 subscription ids":  (&Publish{Topic: topic, Payload: payload, SubscriptionIDs: []uint32{1, 2}}).Append(nil, V5),
	}
}

func versionOf(name string) Version {
	if name[:2] == "v5" {
		return V5
	}
	return V311
}

func TestPublishDecodeAllocatesNothing(t *testing.T) {
	for name, wire := range publishes() {
		var p Publish
		n := testing.AllocsPerRun(100, func() {
			h, body, _, err := Next(wire, 0)
			if err == nil {
				err = p.Decode(h, body, versionOf(name))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkPublishDecode(b *testing.B) {
	for name, wire := range publishes() {
		b.Run(name, func(b *testing.B) {
			var p Publish
			v := versionOf(name)
			b.ReportAllocs()
			for b.Loop() {
				h, body, _, err := Next(wire, 1<<20)
				if err == nil {
					err = p.Decode(h, body, v)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublishAppend(b *testing.B) {
	for name, wire := range publishes() {
		b.Run(name, func(b *testing.B) {
			var p Publish
			v := versionOf(name)
			h, body := next(b, wire)
			if err := p.Decode(h, body, v); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 0, len(wire)+16)
			b.ReportAllocs()
			for b.Loop() {
				buf = p.Append(buf[:0], v)
			}
		})
	}
}

func BenchmarkConnectDecode(b *testing.B) {
	for _, v := range versions {
		b.Run(v.String(), func(b *testing.B) {
			h, body := next(b, (&Connect{CleanStart: true, KeepAlive: 60, ClientID: "client-4711", RequestProblemInfo: true}).Append(nil, v))
			var p Connect
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Decode(h, body, v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValidUTF8(b *testing.B) {
	text := []byte("factory/7/line/3/temperature")
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			ValidUTF8(text)
		}
	})
	b.Run("two passes", func(b *testing.B) {
		for b.Loop() {
			validBeyondASCII(text)
		}
	})
}
