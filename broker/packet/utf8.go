package packet

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// ValidUTF8 reports whether b may stand in a UTF-8 Encoded String: well-formed,
// without surrogates [MQTT-1.5.4-1] and without U+0000 [MQTT-1.5.4-2]. A byte
// order mark is a character like others [MQTT-1.5.4-3].
func ValidUTF8(b []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	rest := b
	for ; len(rest) >= 8; rest = rest[8:] {
		// A byte of 0x80 and more has its high bit set, a byte of zero gets it
		// set by the subtraction; of 0x01 to 0x7F neither is true.
		if w := binary.LittleEndian.Uint64(rest); (w|(w-ones))&highs != 0 {
			return validBeyondASCII(rest)
		}
	}
	for i, c := range rest {
		if c-1 >= 0x7f {
			return validBeyondASCII(rest[i:])
		}
	}
	return true
}

// validBeyondASCII is ValidUTF8 without its short cut. utf8.Valid refuses
// surrogates and overlong forms.
func validBeyondASCII(b []byte) bool {
	return bytes.IndexByte(b, 0) < 0 && utf8.Valid(b)
}
