package packet

// Pingreq is PINGREQ (MQTT 5 §3.12).
type Pingreq struct{}

// Decode checks that the packet has no body.
func (*Pingreq) Decode(h Header, body []byte, v Version) error {
	r := newReader(TypePingreq, h, body, v)
	return r.end()
}

// Append writes the packet.
func (*Pingreq) Append(dst []byte, _ Version) []byte {
	return openPacket(dst, TypePingreq, 0)
}

// Pingresp is PINGRESP (MQTT 5 §3.13).
type Pingresp struct{}

// Decode checks that the packet has no body.
func (*Pingresp) Decode(h Header, body []byte, v Version) error {
	r := newReader(TypePingresp, h, body, v)
	return r.end()
}

// Append writes the packet.
func (*Pingresp) Append(dst []byte, _ Version) []byte {
	return openPacket(dst, TypePingresp, 0)
}
