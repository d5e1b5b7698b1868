package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// scramHash is what a server keeps for SCRAM-SHA-256 (RFC 5802 §3, RFC 7677): with
// it a password can be verified, by SCRAM or as it is, but nobody can log in. In a
// file it is "$scram-sha-256$iterations$salt$stored key$server key", the last
// three in base64.
type scramHash struct{ scram.StoredCredentials }

func (h *scramHash) verify(password []byte) bool {
	keys, err := scramKeys(password, h.KeyFactors)
	return err == nil && subtle.ConstantTimeCompare(keys.StoredKey, h.StoredKey) == 1
}

// scramKeys derives the keys of a password, which is prepared first (SASLprep,
// RFC 4013): clients do so too. Errors do not contain it.
func scramKeys(password []byte, k scram.KeyFactors) (scram.StoredCredentials, error) {
	client, err := scram.SHA256.NewClient("", string(password), "")
	if err != nil {
		return scram.StoredCredentials{}, errors.New("the password has characters that SCRAM does not allow (RFC 4013), such as control characters and emoji")
	}
	return client.GetStoredCredentialsWithError(k)
}

func parseSCRAM(text string) (hash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 4 {
		return nil, errors.New("want iterations$salt$stored key$server key")
	}
	n, err := strconv.Atoi(parts[0])
	if err != nil || n < minSCRAMIterations || n > maxIterations {
		return nil, fmt.Errorf("iterations %.12q: want %d to %d", parts[0], minSCRAMIterations, maxIterations)
	}
	var values [3][]byte
	for i, name := range []string{"salt", "stored key", "server key"} {
		if values[i], err = base64.StdEncoding.Strict().DecodeString(parts[i+1]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if i > 0 && len(values[i]) != sha256.Size {
			return nil, fmt.Errorf("%s of %d bytes: want %d", name, len(values[i]), sha256.Size)
		}
	}
	if len(values[0]) < minSCRAMSalt || len(values[0]) > maxSumBytes {
		return nil, fmt.Errorf("salt of %d bytes: want %d to %d", len(values[0]), minSCRAMSalt, maxSumBytes)
	}
	return &scramHash{scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(values[0]), Iters: n}, StoredKey: values[1], ServerKey: values[2],
	}}, nil
}

func makeSCRAM(password []byte) (string, error) {
	k := scram.KeyFactors{Salt: string(newSalt()), Iters: scramIterations}
	keys, err := scramKeys(password, k)
	if err != nil {
		return "", err
	}
	b := base64.StdEncoding
	return fmt.Sprintf("$scram-sha-256$%d$%s$%s$%s", k.Iters, b.EncodeToString([]byte(k.Salt)), b.EncodeToString(keys.StoredKey), b.EncodeToString(keys.ServerKey)), nil
}
