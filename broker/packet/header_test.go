package packet

import (
	"bytes"
	"errors"
	"testing"
)

func TestNextTakesOneAfterAnother(t *testing.T) {
	var buf []byte
	list := samples(V5)
	for _, p := range list {
		buf = p.Append(buf, V5)
	}
	for _, want := range list {
		_, body, n, err := Next(buf, 0)
		wire := want.Append(nil, V5)
		if err != nil || !bytes.Equal(buf[:n], wire) || !bytes.HasSuffix(wire, body) {
			t.Fatalf("%T: %d bytes, %v", want, n, err)
		}
		if cap(body) != len(body) {
			t.Errorf("%T: the body can be appended into the next packet", want)
		}
		buf = buf[n:]
	}
	if len(buf) != 0 {
		t.Errorf("%d bytes left", len(buf))
	}
}

func TestNextRefusesEarly(t *testing.T) {
	for _, c := range []struct {
		name, buf string
		max       int
		code      Code
	}{
		{"five bytes of length", "\x30\xFF\xFF\xFF\xFF\x01", 0, CodeMalformedPacket},
		{"four bytes and no end", "\x30\xFF\xFF\xFF\xFF", 0, CodeMalformedPacket},
		{"type 0", "\x00", 0, CodeMalformedPacket},
		{"HTTP", "G", 0, CodeMalformedPacket},
		{"TLS", "\x16", 0, CodeMalformedPacket},
		{"QoS 3", "\x36", 0, CodeMalformedPacket},
		{"too large, body not there yet", "\x30\x7F", 128, CodePacketTooLarge},
		{"largest length, small limit", "\x30\xFF\xFF\xFF\x7F", 1 << 20, CodePacketTooLarge},
	} {
		h, body, n, err := Next([]byte(c.buf), c.max)
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code || e.Malformed != (c.code == CodeMalformedPacket) || n != 0 || body != nil {
			t.Errorf("%s: %v, n = %d", c.name, err, n)
		} else if e.Packet != h.Type {
			t.Errorf("%s: error of a %s, header of a %s", c.name, e.Packet, h.Type)
		}
	}
}

func TestNextAtTheLimit(t *testing.T) {
	wire := (&Publish{Topic: []byte("t"), Payload: make([]byte, 200)}).Append(nil, V311)
	if _, _, n, err := Next(wire, len(wire)); n != len(wire) || err != nil {
		t.Errorf("packet of the maximum size: %d, %v", n, err)
	}
	if _, _, _, err := Next(wire, len(wire)-1); err == nil {
		t.Error("packet above the maximum size: no error")
	}
	if _, _, n, err := Next([]byte("\x30\xFF\xFF\xFF\x7F"), 0); n != 0 || err != nil {
		t.Errorf("largest packet of all: %d, %v", n, err)
	}
	if need := Needed([]byte("\x30\xFF\xFF\xFF\x7F")); need != MaxPacketBytes {
		t.Errorf("largest packet of all: Needed = %d", need)
	}
}

func TestFromClient(t *testing.T) {
	for typ := Type(0); typ < 16; typ++ {
		server := typ == 0 || typ == TypeConnack || typ == TypeSuback || typ == TypeUnsuback || typ == TypePingresp
		if typ.FromClient() == server {
			t.Errorf("%s: FromClient = %v", typ, typ.FromClient())
		}
	}
}
