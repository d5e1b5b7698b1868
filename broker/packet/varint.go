package packet

// varint decodes the Variable Byte Integer at the start of b (MQTT 5 §1.5.5) and
// returns its size: 0 if b ends before it does, -1 if it has too many bytes.
// The caller checks by varintSize that it is minimal.
func varint(b []byte) (value uint32, size int) {
	for i, c := range b {
		if i == maxVarintBytes {
			return 0, -1
		}
		value |= uint32(c&0x7f) << (7 * i)
		if c < 0x80 {
			return value, i + 1
		}
	}
	if len(b) >= maxVarintBytes {
		return 0, -1
	}
	return 0, 0
}

// varintSize returns how many bytes value takes, 5 if it is above MaxVarint.
func varintSize(value uint32) int {
	size := 1
	for value >>= 7; value > 0; value >>= 7 {
		size++
	}
	return size
}

func appendVarint(dst []byte, value uint32) []byte {
	for value >= 0x80 {
		dst = append(dst, byte(value)|0x80)
		value >>= 7
	}
	return append(dst, byte(value))
}
