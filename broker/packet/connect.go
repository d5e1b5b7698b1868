package packet

import "encoding/binary"

// Connect is CONNECT (MQTT 5 §3.1).
type Connect struct {
	// Version is what the protocol name and level say. When Decode fails it is
	// the version in which the client can be answered by CONNACK, 0 if the
	// packet did not get far enough to tell or is not MQTT at all: then the
	// connection is closed without an answer.
	Version    Version
	CleanStart bool   // MQTT 3: Clean Session
	KeepAlive  uint16 // seconds, 0 for none
	ClientID   string // may be empty
	Will       *Will  // nil for none
	// Bridge is the highest bit of an MQTT 3 protocol level, by which Mosquitto's
	// bridges say what they are. No standard knows it.
	Bridge bool

	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte

	// What follows exists in MQTT 5 only.

	HasSessionExpiry  bool
	SessionExpiry     uint32 // seconds, 0xFFFFFFFF: never
	ReceiveMaximum    uint16 // 0: not given, 65,535
	MaximumPacketSize uint32 // bytes; 0: not given, no limit
	TopicAliasMaximum uint16
	// RequestProblemInfo is true when not given.
	RequestProblemInfo  bool
	RequestResponseInfo bool
	HasAuthMethod       bool
	AuthMethod          string
	AuthData            []byte // nil for none
	UserProperties      []UserProperty
}

// Connect Flags (MQTT 5 §3.1.2.3).
const (
	connectReserved   = 0x01
	connectCleanStart = 0x02
	connectWill       = 0x04
	connectWillQoS    = 0x18
	connectWillRetain = 0x20
	connectPassword   = 0x40
	connectUsername   = 0x80
)

// levelBridge is the bit of the protocol level that Connect.Bridge is about.
const levelBridge = 0x80

// Decode fills p; the version is the packet's own. A protocol name or level that
// is not spoken here is an *Error with CodeUnsupportedProtocolVersion.
func (p *Connect) Decode(h Header, body []byte, _ Version) error {
	*p = Connect{RequestProblemInfo: true}
	r := newReader(TypeConnect, h, body, 0)
	p.decodeProtocol(&r)
	if e := h.check(p.Version); r.err == nil && e != nil {
		return e
	}
	flags := r.byte("connect flags")
	p.checkFlags(&r, flags)
	p.CleanStart = flags&connectCleanStart != 0
	p.KeepAlive = r.uint16("keep alive")
	if p.Version == V5 {
		p.decodeProperties(&r)
	}
	p.ClientID = string(r.text("client identifier"))
	if flags&connectWill != 0 {
		p.Will = decodeWill(&r, p.Version, flags)
	}
	p.decodeCredentials(&r, flags)
	return r.end()
}

// decodeProtocol tells the version from protocol name and level
// ([MQTT-3.1.2-1], [MQTT-3.1.2-2]). To a level not known here it assigns the
// nearest version, in which the client may understand a refusal.
func (p *Connect) decodeProtocol(r *reader) {
	name := string(r.binary("protocol name"))
	level := r.byte("protocol level")
	if r.err != nil {
		return
	}
	switch spoken := Version(level &^ levelBridge); {
	case name == "MQIsdp" && spoken == V31, name == "MQTT" && spoken == V311:
		p.Version, p.Bridge = spoken, level&levelBridge != 0
		return
	case name == "MQTT" && level == byte(V5):
		p.Version = V5
		return
	case name == "MQTT" && level > 5:
		p.Version = V5
	case name == "MQTT" || name == "MQIsdp":
		p.Version = V311
	}
	r.fail(&Error{Code: CodeUnsupportedProtocolVersion, Packet: TypeConnect, Reason: "unknown protocol name or level"})
}

func (p *Connect) checkFlags(r *reader, flags byte) {
	willQoS := QoS(flags & connectWillQoS >> 3)
	switch {
	case flags&connectReserved != 0: // [MQTT-3.1.2-3]
		r.malformed("reserved connect flag")
	case flags&connectWill == 0 && flags&(connectWillQoS|connectWillRetain) != 0: // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
		r.malformed("will QoS or will retain without a will")
	case willQoS > QoS2: // [MQTT-3.1.2-12]
		r.malformed("will QoS 3")
	case p.Version != V5 && flags&connectPassword != 0 && flags&connectUsername == 0: // MQTT 3.1.1 [MQTT-3.1.2-22]
		r.malformed("password without user name")
	}
}

func (p *Connect) decodeProperties(r *reader) {
	for r.properties(TypeConnect); r.next(); {
		switch r.ps.id {
		case propSessionExpiry:
			p.HasSessionExpiry, p.SessionExpiry = true, r.ps.num
		case propReceiveMaximum:
			p.ReceiveMaximum = uint16(r.ps.num)
		case propMaximumPacketSize:
			p.MaximumPacketSize = r.ps.num
		case propTopicAliasMaximum:
			p.TopicAliasMaximum = uint16(r.ps.num)
		case propRequestProblemInfo:
			p.RequestProblemInfo = r.ps.num == 1
		case propRequestResponseInfo:
			p.RequestResponseInfo = r.ps.num == 1
		case propAuthMethod:
			p.HasAuthMethod, p.AuthMethod = true, string(r.ps.data)
		case propAuthData:
			p.AuthData = r.ps.data
		case propUserProperty:
			p.UserProperties = append(p.UserProperties, r.ps.pair())
		}
	}
	if p.AuthData != nil && !p.HasAuthMethod { // MQTT 5 §3.1.2.11.10
		r.protocol("authentication data without authentication method")
	}
}

// decodeCredentials reads user name and password. MQTT 3.1 §3.1 wants servers to
// allow that they are missing in spite of their flags.
func (p *Connect) decodeCredentials(r *reader, flags byte) {
	missing := func() bool { return p.Version == V31 && len(r.rest) == 0 }
	if flags&connectUsername != 0 && !missing() {
		p.HasUsername, p.Username = true, string(r.text("user name"))
	}
	if flags&connectPassword != 0 && !missing() {
		p.HasPassword, p.Password = true, r.binary("password")
	}
}

// Append writes the packet in version v, whatever p.Version is.
func (p *Connect) Append(dst []byte, v Version) []byte {
	start := len(dst)
	dst = openPacket(dst, TypeConnect, 0)
	name := "MQTT"
	if v == V31 {
		name = "MQIsdp"
	}
	dst = appendText(dst, name)
	level := byte(v)
	if p.Bridge && v != V5 {
		level |= levelBridge
	}
	dst = append(dst, level, p.flags())
	dst = binary.BigEndian.AppendUint16(dst, p.KeepAlive)
	if v == V5 {
		dst = p.appendProperties(dst)
	}
	dst = appendText(dst, p.ClientID)
	if p.Will != nil {
		dst = p.Will.append(dst, v)
	}
	if p.HasUsername {
		dst = appendText(dst, p.Username)
	}
	if p.HasPassword {
		dst = appendBinary(dst, p.Password)
	}
	return closePacket(dst, start)
}

func (p *Connect) flags() byte {
	var flags byte
	set := func(on bool, bit byte) {
		if on {
			flags |= bit
		}
	}
	set(p.CleanStart, connectCleanStart)
	set(p.HasUsername, connectUsername)
	set(p.HasPassword, connectPassword)
	if w := p.Will; w != nil {
		flags |= connectWill | byte(w.QoS&3)<<3
		set(w.Retain, connectWillRetain)
	}
	return flags
}

func (p *Connect) appendProperties(dst []byte) []byte {
	dst, at := openProperties(dst)
	if p.HasSessionExpiry {
		dst = appendUint32Property(dst, propSessionExpiry, p.SessionExpiry)
	}
	if p.ReceiveMaximum != 0 {
		dst = appendUint16Property(dst, propReceiveMaximum, p.ReceiveMaximum)
	}
	if p.MaximumPacketSize != 0 {
		dst = appendUint32Property(dst, propMaximumPacketSize, p.MaximumPacketSize)
	}
	if p.TopicAliasMaximum != 0 {
		dst = appendUint16Property(dst, propTopicAliasMaximum, p.TopicAliasMaximum)
	}
	if !p.RequestProblemInfo {
		dst = appendFlagProperty(dst, propRequestProblemInfo, false)
	}
	if p.RequestResponseInfo {
		dst = appendFlagProperty(dst, propRequestResponseInfo, true)
	}
	if p.HasAuthMethod {
		dst = appendText(append(dst, byte(propAuthMethod)), p.AuthMethod)
	}
	dst = appendBinaryProperty(dst, propAuthData, p.AuthData)
	dst = appendUserProperties(dst, p.UserProperties)
	return closeLength(dst, at)
}
