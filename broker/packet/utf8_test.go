package packet

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// Every byte at every place of strings around the length of a word.
func TestValidUTF8EveryByte(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				b := bytes.Repeat([]byte("a"), length)
				b[at] = byte(c)
				if want := c > 0 && c < 0x80; ValidUTF8(b) != want {
					t.Fatalf("%q: %v", b, !want)
				}
			}
		}
	}
}

func TestValidUTF8(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(textOf(0).Draw(t, "text"))
		if !ValidUTF8(b) {
			t.Fatalf("%q is refused", b)
		}
		if len(b) > 0 { // break it, or not
			at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
			b[at] = rapid.SampledFrom([]byte{0, 0x80, 0xBF, 0xC3, 0xED, 0xF0, 0xFF, 'x'}).Draw(t, "byte")
		}
		if want := utf8.Valid(b) && bytes.IndexByte(b, 0) < 0; ValidUTF8(b) != want {
			t.Fatalf("%q: %v", b, !want)
		}
	})
}
