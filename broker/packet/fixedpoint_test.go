package packet

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// What Append writes Decode reads, and the samples show every field.
func TestSamplesFixedPoint(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			checkFixedPoint(t, p, v)
		}
	}
}

func TestFixedPoint(t *testing.T) {
	for _, v := range versions {
		for _, typ := range typesOf(v) {
			t.Run(v.String()+"/"+typ.String(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) { checkFixedPoint(t, packetOf(t, typ, v), v) })
			})
		}
	}
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkFixedPoint(t failer, p Packet, v Version) {
	t.Helper()
	prefix := []byte("before")
	wire := p.Append(prefix, v)[len(prefix):]
	if pub, ok := p.(*Publish); ok && pub.Size(v) != len(wire) {
		t.Fatalf("Size = %d, wrote %d bytes", pub.Size(v), len(wire))
	}
	h, body, n, err := Next(wire, len(wire))
	if err != nil || n != len(wire) {
		t.Fatalf("Next(% x) = %d of %d, %v", wire, n, len(wire), err)
	}
	got, err := Decode(h, body, v)
	if err != nil {
		t.Fatalf("%+v in %s: %v", p, v, err)
	}
	if !reflect.DeepEqual(plain(got), plain(p)) {
		t.Fatalf("in %s\nwrote %+v\nread  %+v", v, p, got)
	}
	if again := got.Append(nil, v); !bytes.Equal(again, wire) {
		t.Fatalf("in %s\nwrote % x\nthen  % x", v, wire, again)
	}
}

// Append does not allocate if the buffer is large enough, and leaves what is
// behind its packet alone.
func TestAppendInPlace(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			size := len(p.Append(nil, v))
			buf := make([]byte, size+1)
			buf[size] = 0xAA
			if n := testing.AllocsPerRun(10, func() { p.Append(buf[:0:size], v) }); n != 0 {
				t.Errorf("%T in %s: %v allocations", p, v, n)
			}
			if buf[size] != 0xAA {
				t.Errorf("%T in %s: wrote beyond its packet", p, v)
			}
		}
	}
}

// The shortest forms of MQTT 5, byte by byte (§3.4.2.1, §3.14.2.1, §3.15.2.1).
func TestAppendShortest(t *testing.T) {
	for _, c := range []struct {
		p    Packet
		v    Version
		want string
	}{
		{&Ack{Type: TypePuback, PacketID: 258}, V5, "\x40\x02\x01\x02"},
		{&Ack{Type: TypePubrel, PacketID: 1}, V5, "\x62\x02\x00\x01"},
		{&Ack{Type: TypePubrec, PacketID: 1, Code: CodeNoMatchingSubscribers}, V5, "\x50\x03\x00\x01\x10"},
		{&Ack{Type: TypePubcomp, PacketID: 1, Code: CodePacketIdentifierNotFound, ReasonString: "?"}, V311, "\x70\x02\x00\x01"},
		{&Disconnect{}, V5, "\xE0\x00"},
		{&Disconnect{Code: CodeServerShuttingDown}, V5, "\xE0\x01\x8B"},
		{&Disconnect{Code: CodeServerUnavailable}, V5, "\xE0\x01\x89"},
		{&Disconnect{Code: CodeServerShuttingDown, ServerReference: "x"}, V311, "\xE0\x00"},
		{&Auth{}, V5, "\xF0\x00"},
		{&Auth{}, V311, ""},
		{&Connack{}, V5, "\x20\x03\x00\x00\x00"},
		{&Connack{SessionPresent: true, Code: CodeNotAuthorized}, V5, "\x20\x03\x00\x87\x00"},
		{&Connack{SessionPresent: true}, V31, "\x20\x02\x00\x00"},
		{&Connack{SessionPresent: true}, V311, "\x20\x02\x01\x00"},
		{&Connack{Code: CodeServerUnavailable}, V311, "\x20\x02\x00\x03"},
		{&Pingreq{}, V5, "\xC0\x00"},
		{&Pingresp{}, V5, "\xD0\x00"},
	} {
		if got := string(c.p.Append(nil, c.v)); got != c.want {
			t.Errorf("%+v in %s: % x, want % x", c.p, c.v, got, c.want)
		}
	}
}
