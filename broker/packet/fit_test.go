package packet

import (
	"strings"
	"testing"
)

type limited interface {
	Packet
	AppendLimit(dst []byte, v Version, max uint32) []byte
}

// With every limit from nothing to the whole: what is appended keeps the limit,
// can be decoded, has all that matters, and lost no more than it had to.
func TestAppendLimit(t *testing.T) {
	user := []UserProperty{{"key", "value"}, {"key", "more"}}
	for _, c := range []struct {
		full, noUser, bare limited
	}{
		{
			&Connack{AssignedClientID: "id", ReasonString: "why", UserProperties: user},
			&Connack{AssignedClientID: "id", ReasonString: "why"}, &Connack{AssignedClientID: "id"},
		},
		{
			&Ack{Type: TypePubrec, PacketID: 1, Code: CodeQuotaExceeded, ReasonString: "why", UserProperties: user},
			&Ack{Type: TypePubrec, PacketID: 1, Code: CodeQuotaExceeded, ReasonString: "why"},
			&Ack{Type: TypePubrec, PacketID: 1, Code: CodeQuotaExceeded},
		},
		{
			&Suback{PacketID: 1, Codes: []Code{1}, ReasonString: "why", UserProperties: user},
			&Suback{PacketID: 1, Codes: []Code{1}, ReasonString: "why"}, &Suback{PacketID: 1, Codes: []Code{1}},
		},
		{
			&Unsuback{PacketID: 1, Codes: []Code{0}, ReasonString: "why", UserProperties: user},
			&Unsuback{PacketID: 1, Codes: []Code{0}, ReasonString: "why"}, &Unsuback{PacketID: 1, Codes: []Code{0}},
		},
		{
			&Disconnect{Code: CodeServerMoved, ServerReference: "r", ReasonString: "why", UserProperties: user},
			&Disconnect{Code: CodeServerMoved, ServerReference: "r", ReasonString: "why"},
			&Disconnect{Code: CodeServerMoved, ServerReference: "r"},
		},
		{
			&Auth{AuthMethod: "m", ReasonString: "why", UserProperties: user},
			&Auth{AuthMethod: "m", ReasonString: "why"}, &Auth{AuthMethod: "m"},
		},
	} {
		full, noUser, bare := string(c.full.Append(nil, V5)), string(c.noUser.Append(nil, V5)), string(c.bare.Append(nil, V5))
		if !(len(bare) < len(noUser) && len(noUser) < len(full)) {
			t.Fatalf("%T: sizes %d, %d, %d", c.full, len(bare), len(noUser), len(full))
		}
		for max := range len(full) + 2 {
			want := full
			switch {
			case max == 0: // no limit
			case max < len(bare):
				want = ""
			case max < len(noUser):
				want = bare
			case max < len(full):
				want = noUser
			}
			if got := string(c.full.AppendLimit([]byte("before"), V5, uint32(max))); got != "before"+want {
				t.Errorf("%T within %d bytes: %q, want %q", c.full, max, got, want)
			}
		}
		if again := string(c.full.Append(nil, V5)); again != full {
			t.Errorf("%T changed", c.full)
		}
	}
}

// What the lengths of the wire cannot count is not written, or cut between
// characters: the peer is never put out of step.
func TestAppendBeyondTheWire(t *testing.T) {
	p := &Publish{Topic: make([]byte, MaxStringBytes+1)}
	if got := p.Append([]byte("before"), V5); string(got) != "before" || p.Size(V5) != 0 {
		t.Errorf("PUBLISH with a long topic: %d bytes, Size %d", len(got), p.Size(V5))
	}
	for _, reason := range []string{strings.Repeat("x", MaxStringBytes+9), strings.Repeat("€", 30000), "x" + strings.Repeat("😀", 20000)} {
		wire := (&Ack{Type: TypePuback, PacketID: 1, ReasonString: reason}).Append(nil, V5)
		h, body := next(t, wire)
		var ack Ack
		if err := ack.Decode(h, body, V5); err != nil {
			t.Fatal(err)
		}
		if n := len(ack.ReasonString); n > MaxStringBytes || n < MaxStringBytes-3 || !strings.HasPrefix(reason, ack.ReasonString) {
			t.Errorf("reason of %d bytes was cut to %d", len(reason), n)
		}
	}
}
