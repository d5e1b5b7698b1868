package packet

import (
	"slices"
	"strings"
	"testing"
)

// The tables of Reason Codes in the sections of the packets.
func TestCodesOfPackets(t *testing.T) {
	published := []Code{0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
	for typ, want := range map[Type][]Code{
		TypeConnack: {
			0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
			0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
		},
		TypePuback:   published,
		TypePubrec:   published,
		TypePubrel:   {0x00, 0x92},
		TypePubcomp:  {0x00, 0x92},
		TypeSuback:   {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
		TypeUnsuback: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
		TypeDisconnect: {
			0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
			0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
		},
		TypeAuth:    {0x00, 0x18, 0x19},
		TypePublish: nil,
		TypePingreq: nil,
	} {
		var got []Code
		for c := range 256 {
			if Code(c).In(typ) {
				got = append(got, Code(c))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %x, want %x", typ, got, want)
		}
	}
}

// Every code becomes one that the packet can carry, and stays itself if it can.
func TestCodeFitting(t *testing.T) {
	for c := range 256 {
		code := Code(c)
		for _, typ := range []Type{TypeConnack, TypePuback, TypePubrec, TypePubrel, TypePubcomp, TypeSuback, TypeUnsuback, TypeDisconnect} {
			got := code.fitting(typ)
			if !got.In(typ) || code.In(typ) && got != code || !code.In(typ) && !got.Failed() {
				t.Errorf("%#x in %s becomes %#x", c, typ, byte(got))
			}
		}
	}
	if got := CodeServerUnavailable.fitting(TypeDisconnect); got != CodeServerBusy {
		t.Errorf("server unavailable in DISCONNECT becomes %s", got)
	}
}

// Return codes of MQTT 3.1.1 table 3.1.
func TestReturnCode(t *testing.T) {
	for want, code := range returnCodes {
		if got, ok := code.ReturnCode(); !ok || int(got) != want {
			t.Errorf("%s: %d, %v; want %d", code, got, ok, want)
		}
	}
	for _, code := range []Code{CodeMalformedPacket, CodeProtocolError, CodePacketTooLarge, CodeTopicNameInvalid} {
		if _, ok := code.ReturnCode(); ok {
			t.Errorf("%s has a return code", code)
		}
		if wire := (&Connack{Code: code}).Append(nil, V311); len(wire) != 0 {
			t.Errorf("%s: CONNACK % x", code, wire)
		}
	}
	for code := range 256 {
		if rc, ok := Code(code).ReturnCode(); ok && (int(rc) >= len(returnCodes) || (rc == 0) != (code == 0)) {
			t.Errorf("%#x has the return code %d", code, rc)
		}
	}
}

func TestCodeString(t *testing.T) {
	if got := CodeSessionTakenOver.String(); got != "session taken over" {
		t.Error(got)
	}
	if got := Code(0x77).String(); !strings.Contains(got, "0x77") {
		t.Error(got)
	}
}

// Every failure of a SUBSCRIBE is 0x80 in MQTT 3.1.1 ([MQTT-3.9.3-2] there); in
// MQTT 3.1 what is not authorized is acknowledged all the same (§3.8 there).
func TestSubackFailureInMQTT3(t *testing.T) {
	p := &Suback{PacketID: 1, Codes: []Code{CodeGrantedQoS1, CodeNotAuthorized, CodeTopicFilterInvalid}}
	if got := string(p.Append(nil, V311)); got != "\x90\x05\x00\x01\x01\x80\x80" {
		t.Errorf("% x", got)
	}
	if got := string(p.Append(nil, V31)); got != "\x90\x05\x00\x01\x01\x00\x80" {
		t.Errorf("% x", got)
	}
}
