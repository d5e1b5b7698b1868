package packet

import (
	"bytes"
	"testing"
)

// The bounds in table 1-1 of MQTT 5.
func TestVarintBounds(t *testing.T) {
	for _, c := range []struct {
		value uint32
		wire  string
	}{
		{0, "\x00"}, {127, "\x7F"},
		{128, "\x80\x01"}, {16383, "\xFF\x7F"},
		{16384, "\x80\x80\x01"}, {2097151, "\xFF\xFF\x7F"},
		{2097152, "\x80\x80\x80\x01"}, {MaxVarint, "\xFF\xFF\xFF\x7F"},
	} {
		if wire := appendVarint(nil, c.value); string(wire) != c.wire || varintSize(c.value) != len(wire) {
			t.Errorf("%d: % x, size %d", c.value, wire, varintSize(c.value))
		}
		if value, size := varint([]byte(c.wire + "\xFF\xFF")); value != c.value || size != len(c.wire) {
			t.Errorf("% x: %d, size %d", c.wire, value, size)
		}
		for cut := range c.wire {
			if _, size := varint([]byte(c.wire[:cut])); size != 0 {
				t.Errorf("% x: size %d", c.wire[:cut], size)
			}
		}
	}
}

// closeLength moves what it counts for every size of the length.
func TestCloseLength(t *testing.T) {
	for _, length := range []int{0, 1, 127, 128, 16383, 16384, 2097151, 2097152} {
		content := bytes.Repeat([]byte{0xA5}, length)
		dst := append([]byte("before\x00"), content...)
		got := closeLength(dst, len("before"))
		want := append(appendVarint([]byte("before"), uint32(length)), content...)
		if !bytes.Equal(got, want) {
			t.Errorf("length %d: wrong", length)
		}
	}
}
