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
