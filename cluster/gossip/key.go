package gossip

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
)

// LoadKey reads the key that encrypts gossip (AES) from a file: 16, 24 or 32
// bytes in hexadecimal, in base64 as `openssl rand -base64 32` writes them, or
// as they are; tried in this order.
func LoadKey(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read gossip key: %w", err)
	}
	text := string(bytes.TrimSpace(data))
	if key, err := hex.DecodeString(text); err == nil && checkKey(key) == nil {
		return key, nil
	}
	if key, err := base64.StdEncoding.DecodeString(text); err == nil && checkKey(key) == nil {
		return key, nil
	}
	if err := checkKey(data); err != nil {
		return nil, fmt.Errorf("read gossip key: %s holds none in hexadecimal, base64 or raw: %w", path, err)
	}
	return data, nil
}

func checkKey(key []byte) error {
	switch len(key) {
	case 16, 24, 32:
		return nil
	}
	return fmt.Errorf("key has %d bytes, must have 16, 24 or 32", len(key))
}
