package packet

// Will is the Will Message of a CONNECT.
type Will struct {
	Topic   string // valid UTF-8, not empty; wildcards are not looked for
	Payload []byte
	QoS     QoS
	Retain  bool

	// What follows exists in MQTT 5 only.

	DelaySeconds  uint32 // Will Delay Interval
	HasExpiry     bool
	MessageExpiry uint32 // seconds, from the publishing of the Will
	// Forward holds the properties that are handed on unaltered, as ParseForward
	// takes them apart. It may alias the body.
	Forward []byte
}

func decodeWill(r *reader, v Version, flags byte) *Will {
	w := &Will{QoS: QoS(flags & connectWillQoS >> 3), Retain: flags&connectWillRetain != 0}
	if v == V5 {
		var f forwarding
		for r.properties(inWill); r.next(); {
			switch r.ps.id {
			case propWillDelay:
				w.DelaySeconds = r.ps.num
			case propMessageExpiry:
				w.HasExpiry, w.MessageExpiry = true, r.ps.num
			default:
				f.add(r)
			}
		}
		w.Forward = f.block
	}
	w.Topic = string(r.text("will topic"))
	w.Payload = r.binary("will payload")
	if w.Topic == "" { // [MQTT-4.7.3-1]
		r.malformed("will topic is empty")
	}
	return w
}

func (w *Will) append(dst []byte, v Version) []byte {
	if v == V5 {
		var at int
		dst, at = openProperties(dst)
		if w.DelaySeconds != 0 {
			dst = appendUint32Property(dst, propWillDelay, w.DelaySeconds)
		}
		if w.HasExpiry {
			dst = appendUint32Property(dst, propMessageExpiry, w.MessageExpiry)
		}
		dst = append(dst, w.Forward...)
		dst = closeLength(dst, at)
	}
	dst = appendText(dst, w.Topic)
	return appendBinary(dst, w.Payload)
}
