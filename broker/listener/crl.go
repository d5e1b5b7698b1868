package listener

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// revocations are the lists of authorities, by their name. It is not changed.
//
// They are held to as OpenSSL's users know it: the certificate of a client must
// be of an authority that has a list, and the list must not be out of date, for
// whoever can hold back the next list could otherwise undo a revocation. For the
// authorities between it and the root a list is looked at if there is one.
type revocations struct{ lists map[string]*revocationList }

type revocationList struct {
	number  *big.Int
	until   time.Time // zero for ever
	serials map[string]struct{}
}

// readRevocations reads lists, each of which one of the authorities must have
// signed.
func readRevocations(file []byte, authorities []*x509.Certificate) (*revocations, error) {
	r := &revocations{lists: make(map[string]*revocationList)}
	err := eachBlock(file, "X509 CRL", func(der []byte) error {
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		if !signed(l, authorities) {
			return fmt.Errorf("list of %q: none of the client authorities has signed it", l.Issuer)
		}
		r.add(l)
		return nil
	})
	if err == nil && len(r.lists) == 0 {
		err = errors.New("no revocation list (X509 CRL) in the file")
	}
	return r, err
}

func signed(l *x509.RevocationList, authorities []*x509.Certificate) bool {
	for _, a := range authorities {
		if bytes.Equal(a.RawSubject, l.RawIssuer) && l.CheckSignatureFrom(a) == nil {
			return true
		}
	}
	return false
}

// add takes a list, unless a newer one of its authority is there.
func (r *revocations) add(l *x509.RevocationList) {
	name := string(l.RawIssuer)
	if old := r.lists[name]; old != nil && old.number != nil && l.Number != nil && old.number.Cmp(l.Number) > 0 {
		return
	}
	n := &revocationList{number: l.Number, until: l.NextUpdate, serials: make(map[string]struct{}, len(l.RevokedCertificateEntries))}
	for _, e := range l.RevokedCertificateEntries {
		n.serials[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	r.lists[name] = n
}

// errRevoked and its like are why a certificate that is good otherwise is not
// taken.
type certificateError struct{ why string }

func (e *certificateError) Error() string { return "client certificate: " + e.why }

// check looks for a chain of which nothing is revoked. No chain is no
// certificate, which is for others to judge.
func (r *revocations) check(chains [][]*x509.Certificate, now time.Time) (err error) {
	for _, chain := range chains {
		if err = r.checkChain(chain, now); err == nil {
			return nil
		}
	}
	return err
}

func (r *revocations) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain {
		if i == len(chain)-1 && len(chain) > 1 {
			return nil // the root, which is trusted by being in the file
		}
		l := r.lists[string(c.RawIssuer)]
		switch {
		case l == nil && i == 0:
			return &certificateError{fmt.Sprintf("its authority %q has no revocation list", c.Issuer)}
		case l == nil:
			continue
		case !l.until.IsZero() && now.After(l.until):
			return &certificateError{fmt.Sprintf("the revocation list of %q is out of date since %s", c.Issuer, l.until.Format(time.RFC3339))}
		}
		if _, revoked := l.serials[string(c.SerialNumber.Bytes())]; revoked {
			return &certificateError{fmt.Sprintf("%q, serial number %x, is revoked", c.Subject, c.SerialNumber)}
		}
	}
	return nil
}

// eachBlock calls f for the blocks of a type. Errors say on which line of the
// file the block ends.
func eachBlock(file []byte, kind string, f func(der []byte) error) error {
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if block.Type != kind {
			continue
		}
		if err := f(block.Bytes); err != nil {
			return fmt.Errorf("before line %d: %w", blockLine(file, rest), err)
		}
	}
}
