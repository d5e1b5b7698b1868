package packet

import (
	"errors"
	"testing"
)

// Every packet cut at every byte: Next asks for more bytes.
func TestNextOnTruncated(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			wire := p.Append(nil, v)
			for cut := range wire {
				_, _, n, err := Next(wire[:cut:cut], 0)
				if n != 0 || err != nil {
					t.Fatalf("%T in %s, %d of %d bytes: n = %d, %v", p, v, cut, len(wire), n, err)
				}
				if need := Needed(wire[:cut]); need <= cut || need > len(wire) {
					t.Fatalf("%T in %s, %d of %d bytes: Needed = %d", p, v, cut, len(wire), need)
				}
			}
		}
	}
}

// Every body cut at every byte, with a Remaining Length that fits: an error,
// except where the specification lets a packet end.
func TestDecodeTruncated(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			h, body := next(t, p.Append(nil, v))
			ends := legalEnds(p, v, len(body))
			for cut := range body {
				_, err := Decode(h, body[:cut:cut], v)
				var e *Error
				switch {
				case ends[cut] && err != nil:
					t.Errorf("%T in %s, %d of %d bytes: %v", p, v, cut, len(body), err)
				case !ends[cut] && err == nil:
					t.Errorf("%T in %s, %d of %d bytes: no error", p, v, cut, len(body))
				case err != nil && (!errors.As(err, &e) || e.Packet != h.Type || !e.Code.Failed()):
					t.Errorf("%T in %s, %d of %d bytes: %#v", p, v, cut, len(body), err)
				}
			}
		}
	}
}

// legalEnds are the lengths below n at which a body of n bytes is a packet too.
func legalEnds(p Packet, v Version, n int) map[int]bool {
	ends := map[int]bool{}
	last := func(count, size int) { // count items of size bytes may be missing
		for i := 1; i <= count; i++ {
			ends[n-i*size] = true
		}
	}
	switch p := p.(type) {
	case *Publish:
		last(len(p.Payload), 1)
	case *Suback:
		last(len(p.Codes)-1, 1)
	case *Unsuback:
		last(len(p.Codes)-1, 1)
	case *Subscribe:
		last(1, 2+len(p.Subscriptions[len(p.Subscriptions)-1].Filter)+1)
	case *Unsubscribe:
		if len(p.Filters) > 1 {
			last(1, 2+len(p.Filters[len(p.Filters)-1]))
		}
	case *Ack:
		ends[2], ends[3] = v == V5, v == V5
	case *Disconnect:
		ends[0], ends[1] = v == V5, v == V5
	case *Auth:
		ends[0] = true
	case *Connect:
		if v == V31 && p.HasPassword { // MQTT 3.1 lets them be missing
			ends[n-2-len(p.Password)] = true
			ends[n-2-len(p.Password)-2-len(p.Username)] = true
		}
	}
	return ends
}

// A byte behind the end of any packet without a payload is malformed.
func TestDecodeExcess(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			h, body := next(t, p.Append(nil, v))
			switch p := p.(type) {
			case *Publish:
				continue
			case *Suback, *Unsuback:
				if v == V5 || h.Type == TypeSuback {
					continue // one more code
				}
			case *Ack:
				if v == V5 && p.Code == CodeSuccess {
					continue // a Reason Code
				}
			case *Disconnect:
				if v == V5 && len(body) < 2 {
					continue // a Reason Code, a Property Length
				}
			}
			for _, extra := range []byte{0xFF, 0x01} {
				if _, err := Decode(h, append(body[:len(body):len(body)], extra), v); err == nil {
					t.Errorf("%T in %s with a byte more: no error", p, v)
				}
			}
		}
	}
}
