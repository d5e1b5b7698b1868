package gossip

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
)

// LoadKey reads a gossip key: 16, 24 or 32 bytes, in base64, in hexadecimal or
// as they are. White space around it is ignored.
func LoadKey(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	text := bytes.TrimSpace(data)
	if key, err := hex.DecodeString(string(text)); err == nil && keySize(len(key)) {
		return key, nil
	}
	if key, err := base64.StdEncoding.DecodeString(string(text)); err == nil && keySize(len(key)) {
		return key, nil
	}
	if keySize(len(data)) {
		return data, nil
	}
	if keySize(len(text)) {
		return text, nil
	}
	return nil, fmt.Errorf("read gossip key: %s holds no key of 16, 24 or 32 bytes, in base64, in hexadecimal or raw (make one with: openssl rand -base64 32)", path)
}

func keySize(n int) bool { return n == 16 || n == 24 || n == 32 }
