package packet

import (
	"errors"
	"strings"
	"testing"
)

// rule is a packet that a statement of the specification forbids, or allows if
// code is 0. The statement is that of MQTT 5 if it covers several versions.
type rule struct {
	name     string
	versions []Version
	first    byte   // type and flags
	body     string // behind the Remaining Length
	code     Code
}

var (
	v3  = []Version{V31, V311}
	v5  = []Version{V5}
	all = versions
)

// String builders: s is a UTF-8 Encoded String, props counts properties.
func s(text string) string        { return string(appendText(nil, text)) }
func props(list ...string) string { return counted(strings.Join(list, "")) }
func counted(block string) string { return string(appendVarint(nil, uint32(len(block)))) + block }

const (
	connectHead = "\x00\x04MQTT\x05" // what follows: flags, keep alive, properties, payload
	noKeepAlive = "\x00\x00"
	id1         = "\x00\x01"
	malformed81 = CodeMalformedPacket
	protocol82  = CodeProtocolError
)

var rules = []rule{
	{"allowed", v5, 0x30, s("t") + props() + "x", 0},
	{"allowed", v3, 0x30, s("t") + "x", 0},
	{"allowed", v5, 0x10, connectHead + "\x02" + noKeepAlive + props() + s(""), 0},

	{"MQTT-1.5.4-1 surrogate", all, 0x30, s("\xED\xA0\x80") + "\x00", malformed81},
	{"MQTT-1.5.4-1 last surrogate", all, 0x30, s("\xED\xBF\xBF") + "\x00", malformed81},
	{"MQTT-1.5.4-1 overlong", all, 0x30, s("\xC0\x80") + "\x00", malformed81},
	{"MQTT-1.5.4-1 cut character", all, 0x30, s("a\xE2\x82") + "\x00", malformed81},
	{"MQTT-1.5.4-1 above U+10FFFF", all, 0x30, s("\xF4\x90\x80\x80") + "\x00", malformed81},
	{"MQTT-1.5.4-1 filter", v3, 0x82, id1 + s("\xFF") + "\x00", malformed81},
	{"MQTT-1.5.4-1 filter", v5, 0x82, id1 + props() + s("\xFF") + "\x00", malformed81},
	{"MQTT-1.5.4-2 topic", all, 0x30, s("a\x00b") + "\x00", malformed81},
	{"MQTT-1.5.4-2 filter", v5, 0x82, id1 + props() + s("a\x00") + "\x00", malformed81},
	{"MQTT-1.5.4-2 unsubscribe", v5, 0xA2, id1 + props() + s("\x00"), malformed81},
	{"MQTT-1.5.4-2 client id", v5, 0x10, connectHead + "\x02" + noKeepAlive + props() + s("a\x00"), malformed81},
	{"MQTT-1.5.4-2 user name", v5, 0x10, connectHead + "\x82" + noKeepAlive + props() + s("c") + s("\x00"), malformed81},
	{"MQTT-1.5.4-2 long topic", all, 0x30, s(strings.Repeat("abcdefg/", 9)+"\x00") + "\x00", malformed81},
	{"MQTT-1.5.4-3 byte order mark stays", all, 0x30, s("\xEF\xBB\xBFa") + "\x00", 0},
	{"MQTT-1.5.5-1 property length not minimal", v5, 0x30, s("t") + "\x80\x00", malformed81},
	{"MQTT-1.5.5-1 property length of five bytes", v5, 0x30, s("t") + "\x80\x80\x80\x80\x01", malformed81},
	{"MQTT-1.5.5-1 subscription identifier not minimal", v5, 0x82, id1 + props("\x0B\x81\x00") + s("a") + "\x00", malformed81},
	{"MQTT-1.5.7-1 name", v5, 0x30, s("t") + props("\x26"+s("\x00")+s("v")), malformed81},
	{"MQTT-1.5.7-1 value", v5, 0x30, s("t") + props("\x26"+s("k")+s("\xFF")), malformed81},

	{"MQTT-2.1.3-1 PUBACK", all, 0x41, id1, malformed81},
	{"MQTT-2.1.3-1 CONNECT", v5, 0x11, connectHead + "\x02" + noKeepAlive + props() + s("c"), malformed81},
	{"MQTT-2.1.3-1 PINGREQ", all, 0xC8, "", malformed81},
	{"MQTT-2.1.3-1 PINGRESP", all, 0xD1, "", malformed81},
	{"MQTT-3.6.1-1 PUBREL", all, 0x60, id1, malformed81},
	{"MQTT-3.6.1-1 PUBREL repeated", []Version{V311, V5}, 0x6A, id1, malformed81},
	{"MQTT 3.1 §2.1 PUBREL repeated", []Version{V31}, 0x6A, id1, 0},
	{"MQTT 3.1 §2.1 SUBSCRIBE repeated", []Version{V31}, 0x8A, id1 + s("a") + "\x00", 0},
	{"MQTT-3.8.1-1 SUBSCRIBE", v3, 0x80, id1 + s("a") + "\x00", malformed81},
	{"MQTT-3.8.1-1 SUBSCRIBE", v5, 0x83, id1 + props() + s("a") + "\x00", malformed81},
	{"MQTT-3.10.1-1 UNSUBSCRIBE", v5, 0xA0, id1 + props() + s("a"), malformed81},
	{"MQTT-3.14.1-1 DISCONNECT", all, 0xE1, "", malformed81},
	{"MQTT-3.15.1-1 AUTH", v5, 0xF1, "", malformed81},
	{"type 0", all, 0x00, "", malformed81},
	{"AUTH before MQTT 5", v3, 0xF0, "", malformed81},

	{"MQTT-2.2.1-3 PUBLISH", v5, 0x32, s("t") + "\x00\x00" + props(), protocol82},
	{"MQTT-2.2.1-3 PUBLISH", v3, 0x34, s("t") + "\x00\x00", protocol82},
	{"MQTT-2.2.1-3 SUBSCRIBE", v5, 0x82, "\x00\x00" + props() + s("a") + "\x00", protocol82},
	{"MQTT-2.2.1-3 UNSUBSCRIBE", v5, 0xA2, "\x00\x00" + props() + s("a"), protocol82},
	{"MQTT-2.2.1-5 PUBACK", all, 0x40, "\x00\x00", protocol82},
	{"MQTT-2.2.2-1 no property length", v5, 0x30, s("t"), malformed81},
	{"MQTT-2.2.2-1 property length too large", v5, 0x30, s("t") + "\x02\x01", malformed81},
	{"property cut by the property length", v5, 0x30, s("t") + "\x02\x02\x00\x00\x00\x01", malformed81},

	{"property of another packet", v5, 0x30, s("t") + props("\x11\x00\x00\x00\x01"), malformed81},
	{"property of another packet", v5, 0x82, id1 + props("\x1F"+s("r")) + s("a") + "\x00", malformed81},
	{"will delay outside the will", v5, 0x10, connectHead + "\x02" + noKeepAlive + props("\x18\x00\x00\x00\x01") + s("c"), malformed81},
	{"session expiry in the will", v5, 0x10, connectHead + "\x06" + noKeepAlive + props() + s("c") + props("\x11\x00\x00\x00\x01") + s("w") + s(""), malformed81},
	{"unknown property", v5, 0x30, s("t") + props("\x04\x00"), malformed81},
	{"unknown property", v5, 0x30, s("t") + props("\x2B\x00"), malformed81},
	{"unknown property of two bytes", v5, 0x30, s("t") + props("\x80\x01\x00"), malformed81},
	{"property identifier not minimal", v5, 0x30, s("t") + props("\x81\x00\x01"), malformed81},
	{"property twice", v5, 0x30, s("t") + props("\x02\x00\x00\x00\x01\x02\x00\x00\x00\x01"), protocol82},
	{"content type twice", v5, 0x30, s("t") + props("\x03"+s("a"), "\x03"+s("a")), protocol82},
	{"session expiry twice", v5, 0x10, connectHead + "\x02" + noKeepAlive + props("\x11\x00\x00\x00\x01", "\x11\x00\x00\x00\x01") + s("c"), protocol82},
	{"user property twice", v5, 0x30, s("t") + props("\x26"+s("k")+s("v"), "\x26"+s("k")+s("v")), 0},

	{"MQTT-3.1.2-1 protocol name", all, 0x10, s("MQTX") + "\x04\x02" + noKeepAlive + s("c"), CodeUnsupportedProtocolVersion},
	{"MQTT-3.1.2-1 protocol name in lower case", all, 0x10, s("mqtt") + "\x04\x02" + noKeepAlive + s("c"), CodeUnsupportedProtocolVersion},
	{"MQTT-3.1.2-2 level 6", all, 0x10, s("MQTT") + "\x06\x02" + noKeepAlive + props() + s("c"), CodeUnsupportedProtocolVersion},
	{"MQTT-3.1.2-2 level 3 of MQTT", all, 0x10, s("MQTT") + "\x03\x02" + noKeepAlive + s("c"), CodeUnsupportedProtocolVersion},
	{"MQTT-3.1.2-2 level 4 of MQIsdp", all, 0x10, s("MQIsdp") + "\x04\x02" + noKeepAlive + s("c"), CodeUnsupportedProtocolVersion},
	{"a bridge of MQTT 3.1.1", all, 0x10, s("MQTT") + "\x84\x02" + noKeepAlive + s("c"), 0},
	{"a bridge of MQTT 3.1", all, 0x10, s("MQIsdp") + "\x83\x02" + noKeepAlive + s("c"), 0},
	{"no bridge of MQTT 5", all, 0x10, s("MQTT") + "\x85\x02" + noKeepAlive + props() + s("c"), CodeUnsupportedProtocolVersion},
	{"no bridge of MQIsdp 4", all, 0x10, s("MQIsdp") + "\x84\x02" + noKeepAlive + s("c"), CodeUnsupportedProtocolVersion},
	{"MQTT-3.1.2-3 reserved flag", all, 0x10, connectHead + "\x03" + noKeepAlive + props() + s("c"), malformed81},
	{"MQTT-3.1.2-3 reserved flag", all, 0x10, s("MQTT") + "\x04\x03" + noKeepAlive + s("c"), malformed81},
	{"MQTT-3.1.2-11 will QoS without will", all, 0x10, connectHead + "\x0A" + noKeepAlive + props() + s("c"), malformed81},
	{"MQTT-3.1.2-13 will retain without will", all, 0x10, connectHead + "\x22" + noKeepAlive + props() + s("c"), malformed81},
	{"MQTT-3.1.2-12 will QoS 3", all, 0x10, connectHead + "\x1E" + noKeepAlive + props() + s("c") + props() + s("w") + s(""), malformed81},
	{"MQTT-3.1.2-9 empty will payload", all, 0x10, connectHead + "\x06" + noKeepAlive + props() + s("c") + props() + s("w") + s(""), 0},
	{"MQTT-3.1.2-9 no will payload", all, 0x10, connectHead + "\x06" + noKeepAlive + props() + s("c") + props() + s("w"), malformed81},
	{"MQTT-3.1.3-11 empty will topic", all, 0x10, connectHead + "\x06" + noKeepAlive + props() + s("c") + props() + s("") + s(""), malformed81},
	{"MQTT-3.1.3-11 will topic UTF-8", all, 0x10, connectHead + "\x06" + noKeepAlive + props() + s("c") + props() + s("\xFF") + s(""), malformed81},
	{"MQTT-3.1.4-1 excess", all, 0x10, connectHead + "\x02" + noKeepAlive + props() + s("c") + "x", malformed81},
	{"MQTT-3.1.2-16 user name with flag 0", all, 0x10, connectHead + "\x02" + noKeepAlive + props() + s("c") + s("u"), malformed81},
	{"MQTT-3.1.2-17 no user name with flag 1", all, 0x10, connectHead + "\x82" + noKeepAlive + props() + s("c"), malformed81},
	{"MQTT 3.1.1 MQTT-3.1.2-22 password alone", all, 0x10, s("MQTT") + "\x04\x42" + noKeepAlive + s("c") + s("p"), malformed81},
	{"password alone in MQTT 5", all, 0x10, connectHead + "\x42" + noKeepAlive + props() + s("c") + s("p"), 0},
	{"MQTT 3.1 §3.1 user name missing", all, 0x10, s("MQIsdp") + "\x03\xC2" + noKeepAlive + s("c"), 0},
	{"receive maximum 0", all, 0x10, connectHead + "\x02" + noKeepAlive + props("\x21\x00\x00") + s("c"), protocol82},
	{"maximum packet size 0", all, 0x10, connectHead + "\x02" + noKeepAlive + props("\x27\x00\x00\x00\x00") + s("c"), protocol82},
	{"request problem information 2", all, 0x10, connectHead + "\x02" + noKeepAlive + props("\x17\x02") + s("c"), protocol82},
	{"request response information 2", all, 0x10, connectHead + "\x02" + noKeepAlive + props("\x19\x02") + s("c"), protocol82},
	{"MQTT-4.12.0-7 data without method", all, 0x10, connectHead + "\x02" + noKeepAlive + props("\x16"+s("d")) + s("c"), protocol82},

	{"MQTT-3.2.2-1 reserved flags", v5, 0x20, "\x02\x00" + props(), malformed81},
	{"MQTT-3.2.2-6 session present in a refusal", v5, 0x20, "\x01\x87" + props(), protocol82},
	{"MQTT-3.2.2-8 reason code", v5, 0x20, "\x00\x8E" + props(), protocol82},
	{"return code 6", v3, 0x20, "\x00\x06", malformed81},
	{"maximum QoS 2", v5, 0x20, "\x00\x00" + props("\x24\x02"), protocol82},
	{"retain available 2", v5, 0x20, "\x00\x00" + props("\x25\x02"), protocol82},

	{"MQTT-3.3.1-2 DUP with QoS 0", all, 0x38, s("t") + "\x00", malformed81},
	{"MQTT-3.3.1-4 QoS 3", all, 0x36, s("t") + id1 + "\x00", malformed81},
	{"MQTT-3.3.2-1 topic cut short", all, 0x30, "\x00\x05t", malformed81},
	{"empty topic without alias", v5, 0x30, s("") + props(), protocol82},
	{"empty topic with alias", v5, 0x30, s("") + props("\x23\x00\x01"), 0},
	{"MQTT-4.7.3-1 empty topic", v3, 0x30, s("") + "x", malformed81},
	{"MQTT-3.3.2-4 payload format 2", v5, 0x30, s("t") + props("\x01\x02"), malformed81},
	{"MQTT-3.3.2-8 topic alias 0", v5, 0x30, s("t") + props("\x23\x00\x00"), CodeTopicAliasInvalid},
	{"MQTT-3.3.2-13 response topic UTF-8", v5, 0x30, s("t") + props("\x08"+s("\xFF")), malformed81},
	{"MQTT-3.3.2-14 response topic +", v5, 0x30, s("t") + props("\x08"+s("a/+")), protocol82},
	{"MQTT-3.3.2-14 response topic #", v5, 0x30, s("t") + props("\x08"+s("#")), protocol82},
	{"empty response topic", v5, 0x30, s("t") + props("\x08"+s("")), protocol82},
	{"MQTT-3.3.2-14 response topic of a will", all, 0x10, connectHead + "\x06" + noKeepAlive + props() + s("c") + props("\x08"+s("+")) + s("w") + s(""), protocol82},
	{"subscription identifier 0", v5, 0x30, s("t") + props("\x0B\x00"), protocol82},
	{"subscription identifiers", v5, 0x30, s("t") + props("\x0B\x01", "\x0B\x01"), 0},

	{"MQTT-3.4.2-1 PUBACK", v5, 0x40, id1 + "\x92", protocol82},
	{"MQTT-3.5.2-1 PUBREC", v5, 0x50, id1 + "\x01", protocol82},
	{"MQTT-3.6.2-1 PUBREL", v5, 0x62, id1 + "\x80", protocol82},
	{"MQTT-3.7.2-1 PUBCOMP", v5, 0x70, id1 + "\x10", protocol82},
	{"PUBACK without reason code", v5, 0x40, id1, 0},
	{"PUBACK without property length", v5, 0x40, id1 + "\x10", 0},
	{"PUBACK with no properties", v5, 0x40, id1 + "\x00" + props(), 0},
	{"PUBACK with a reason code in MQTT 3", v3, 0x40, id1 + "\x00", malformed81},
	{"PUBACK of one byte", all, 0x40, "\x00", malformed81},

	{"MQTT-3.8.3-2 no filter", v5, 0x82, id1 + props(), protocol82},
	{"MQTT-3.8.3-2 no filter", v3, 0x82, id1, protocol82},
	{"MQTT-3.8.3-5 reserved options", v5, 0x82, id1 + props() + s("a") + "\x40", malformed81},
	{"MQTT-3-8.3-4 reserved bits in MQTT 3", v3, 0x82, id1 + s("a") + "\x04", malformed81},
	{"MQTT-3-8.3-4 QoS 3 in MQTT 3", v3, 0x82, id1 + s("a") + "\x03", malformed81},
	{"maximum QoS 3", v5, 0x82, id1 + props() + s("a") + "\x03", protocol82},
	{"retain handling 3", v5, 0x82, id1 + props() + s("a") + "\x30", protocol82},
	{"filter without options", v5, 0x82, id1 + props() + s("a"), malformed81},
	{"MQTT-4.7.3-1 empty filter", v5, 0x82, id1 + props() + s("") + "\x00", malformed81},
	{"subscription identifier 0", v5, 0x82, id1 + props("\x0B\x00") + s("a") + "\x00", protocol82},
	{"subscription identifier twice", v5, 0x82, id1 + props("\x0B\x01", "\x0B\x02") + s("a") + "\x00", protocol82},
	{"MQTT-3.9.3-2 SUBACK code", v5, 0x90, id1 + props() + "\x03", protocol82},
	{"MQTT 3.1.1 MQTT-3.9.3-2 SUBACK code", v3, 0x90, id1 + "\x87", malformed81},
	{"SUBACK without codes", v5, 0x90, id1 + props(), protocol82},
	{"MQTT-3.10.3-2 no filter", v5, 0xA2, id1 + props(), protocol82},
	{"MQTT-3.10.3-2 no filter", v3, 0xA2, id1, protocol82},
	{"UNSUBACK code", v5, 0xB0, id1 + props() + "\x97", protocol82},
	{"UNSUBACK payload in MQTT 3", v3, 0xB0, id1 + "\x00", malformed81},

	{"PINGREQ body", all, 0xC0, "\x00", malformed81},
	{"DISCONNECT body in MQTT 3", v3, 0xE0, "\x00", malformed81},
	{"MQTT-3.14.2-1 DISCONNECT code", v5, 0xE0, "\x88", protocol82},
	{"DISCONNECT without property length", v5, 0xE0, "\x04", 0},
	{"DISCONNECT excess", v5, 0xE0, "\x00" + props() + "x", malformed81},
	{"MQTT-3.15.2-1 AUTH code", v5, 0xF0, "\x87" + props("\x15"+s("m")), protocol82},
	{"AUTH without method", v5, 0xF0, "\x18" + props(), protocol82},
	{"AUTH without property length", v5, 0xF0, "\x18", malformed81},
	{"AUTH without body", v5, 0xF0, "", 0},
}

func TestRules(t *testing.T) {
	for _, rule := range rules {
		for _, v := range rule.versions {
			t.Run(rule.name+" in "+v.String(), func(t *testing.T) {
				checkRule(t, rule, v)
			})
		}
	}
}

func checkRule(t *testing.T, rule rule, v Version) {
	wire := wireOf(rule.first, []byte(rule.body))
	h, body, _, err := Next(wire, 0)
	if err == nil {
		_, err = Decode(h, body, v)
	}
	var e *Error
	switch {
	case rule.code == 0 && err != nil:
		t.Errorf("% x: %v", wire, err)
	case rule.code == 0:
	case !errors.As(err, &e):
		t.Errorf("% x: error %v, want %#x", wire, err, byte(rule.code))
	case e.Code != rule.code || e.Malformed != (rule.code == CodeMalformedPacket) || e.Packet != Type(rule.first>>4):
		t.Errorf("% x: %v, want %#x", wire, err, byte(rule.code))
	}
}

// What a broker has to know to answer a CONNECT that it refuses.
func TestConnectVersionForAnswer(t *testing.T) {
	for _, c := range []struct {
		body string
		want Version
	}{
		{"\x00", 0},
		{s("HTTP") + "\x04", 0},
		{s("MQTT") + "\x03\x02" + noKeepAlive + s("c"), V311},
		{s("MQIsdp") + "\x04\x02" + noKeepAlive + s("c"), V311},
		{s("MQTT") + "\x09\x02" + noKeepAlive + s("c"), V5},
		{s("MQIsdp") + "\x03\x03", V31},
		{s("MQTT") + "\x04\x03", V311},
		{s("MQTT") + "\x05\x03", V5},
	} {
		var p Connect
		err := p.Decode(Header{Type: TypeConnect}, []byte(c.body), 0)
		if err == nil || p.Version != c.want {
			t.Errorf("%q: version %v, %v; want %v and an error", c.body, p.Version, err, c.want)
		}
	}
}

// [MQTT-1.5.5-1] holds for the Remaining Length in MQTT 5; MQTT 3 does not ask
// for the shortest form.
func TestRemainingLengthNotMinimal(t *testing.T) {
	for _, v := range versions {
		for _, p := range samples(v) {
			wire := p.Append(nil, v)
			_, body := next(t, wire)
			if len(body) > 127 {
				continue
			}
			padded := append([]byte{wire[0], wire[1] | 0x80, 0}, body...)
			h, body, n, err := Next(padded, 0)
			if err != nil || n != len(padded) {
				t.Fatalf("% x: %d, %v", padded, n, err)
			}
			if _, err := Decode(h, body, v); (err == nil) != (v != V5) {
				t.Errorf("%T in %s: %v", p, v, err)
			}
		}
	}
}

// Fields that only a server may send ([MQTT-3.3.4-6], tables 3-10 and 3-11).
func TestCheckClient(t *testing.T) {
	for _, c := range []struct {
		p       interface{ CheckClient() error }
		allowed bool
	}{
		{&Publish{}, true},
		{&Publish{SubscriptionIDs: []uint32{1}}, false},
		{&Disconnect{}, true},
		{&Disconnect{Code: CodeDisconnectWithWill, HasSessionExpiry: true}, true},
		{&Disconnect{Code: CodeReceiveMaximumExceeded}, true},
		{&Disconnect{Code: CodeSessionTakenOver}, false},
		{&Disconnect{Code: CodeServerShuttingDown}, false},
		{&Disconnect{ServerReference: "other"}, false},
		{&Auth{Code: CodeContinueAuthentication}, true},
		{&Auth{Code: CodeReauthenticate}, true},
		{&Auth{Code: CodeSuccess}, false},
	} {
		err := c.p.CheckClient()
		var e *Error
		if (err == nil) != c.allowed || err != nil && (!errors.As(err, &e) || e.Code != CodeProtocolError) {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
}

// A struct refuses the packet of another type.
func TestDecodeOfAnotherType(t *testing.T) {
	for typ := TypeConnect; typ <= TypeAuth; typ++ {
		other := Header{Type: TypePingreq}
		if typ == TypePingreq {
			other.Type = TypePingresp
		}
		if err := newPacket(typ).Decode(other, nil, V5); err == nil {
			t.Errorf("%s took a %s", typ, other.Type)
		}
	}
}
