package packet

// Packet is any of the Control Packets.
type Packet interface {
	// Decode resets the packet and fills it from what Next returned. v is the
	// connection's version; CONNECT, which tells the version, ignores it.
	Decode(h Header, body []byte, v Version) error
	// Append writes the packet in version v behind dst. It does not allocate if
	// the capacity of dst suffices, and writes nothing if v cannot express it.
	Append(dst []byte, v Version) []byte
}

// Decode decodes a packet of any type.
func Decode(h Header, body []byte, v Version) (Packet, error) {
	if e := h.check(v); e != nil {
		return nil, e
	}
	p := newPacket(h.Type)
	if err := p.Decode(h, body, v); err != nil {
		return nil, err
	}
	return p, nil
}

func newPacket(t Type) Packet {
	switch t {
	case TypeConnect:
		return new(Connect)
	case TypeConnack:
		return new(Connack)
	case TypePublish:
		return new(Publish)
	case TypeSubscribe:
		return new(Subscribe)
	case TypeSuback:
		return new(Suback)
	case TypeUnsubscribe:
		return new(Unsubscribe)
	case TypeUnsuback:
		return new(Unsuback)
	case TypePingreq:
		return new(Pingreq)
	case TypePingresp:
		return new(Pingresp)
	case TypeDisconnect:
		return new(Disconnect)
	case TypeAuth:
		return new(Auth)
	}
	return new(Ack)
}
