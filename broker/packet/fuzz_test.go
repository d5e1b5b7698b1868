package packet

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// What a server meets: any bytes, from clients of each version. What is decoded
// is written and decoded to the same; nothing panics.

func FuzzDecode31(f *testing.F)  { fuzzDecode(f, V31) }
func FuzzDecode311(f *testing.F) { fuzzDecode(f, V311) }
func FuzzDecode5(f *testing.F)   { fuzzDecode(f, V5) }

func fuzzDecode(f *testing.F, v Version) {
	for _, p := range samples(v) {
		f.Add(p.Append(nil, v))
	}
	for _, rule := range rules {
		f.Add(wireOf(rule.first, []byte(rule.body)))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		before := bytes.Clone(wire)
		for {
			h, body, n, err := Next(wire, 1<<20)
			if err == nil && n > 0 {
				checkDecoded(t, h, body, v)
			}
			checkError(t, err)
			if err != nil || n == 0 {
				break
			}
			wire = wire[n:]
		}
		if whole := before[len(before)-len(wire):]; !bytes.Equal(whole, wire) {
			t.Fatal("the input was changed")
		}
	})
}

func checkError(t *testing.T, err error) {
	var e *Error
	if err != nil && (!errors.As(err, &e) || !e.Code.Failed() || e.Reason == "" || e.Malformed != (e.Code == CodeMalformedPacket)) {
		t.Fatalf("%#v", err)
	}
}

func checkDecoded(t *testing.T, h Header, body []byte, v Version) {
	p, err := Decode(h, body, v)
	checkError(t, err)
	if err != nil {
		return
	}
	if c, ok := p.(*Connect); ok {
		v = c.Version
	}
	h2, body2 := next(t, p.Append(nil, v))
	q, err := Decode(h2, body2, v)
	if err != nil {
		t.Fatalf("%s % x\nbecomes % x: %v", h.Type, body, body2, err)
	}
	if !reflect.DeepEqual(plain(p), plain(q)) {
		t.Fatalf("%s\nfirst %+v\nthen  %+v", h.Type, p, q)
	}
	if pub, ok := p.(*Publish); ok {
		if _, err := ParseForward(pub.Forward); err != nil {
			t.Fatalf("Forward % x: %v", pub.Forward, err)
		}
	}
}
