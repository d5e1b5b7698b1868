package listener

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// revocations are the lists of authorities, by their name: authorities that are
// called the same, such as one before and after a change of its key, have a list
// each. It is not changed.
//
// They are held to as OpenSSL's users know it: the certificate of a client must
// be of an authority that has a list, and the list must not be out of date, for
// whoever can hold back the next list could otherwise undo a revocation. For the
// authorities between it and the root a list is looked at if there is one.
type revocations struct{ lists map[string][]*revocationList }

type revocationList struct {
	by      []byte // the public key of the authority that has signed it
	number  *big.Int
	until   time.Time // zero for ever
	serials map[string]struct{}
}

// readRevocations reads lists, each of which one of the authorities must have
// signed.
func readRevocations(file []byte, authorities []*x509.Certificate) (*revocations, error) {
	r := &revocations{lists: make(map[string][]*revocationList)}
	err := eachBlock(file, "X509 CRL", func(der []byte) error {
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		by := signer(l, authorities)
		if by == nil {
			return fmt.Errorf("list of %q: none of the client authorities has signed it", l.Issuer)
		}
		if !complete(l) {
			return fmt.Errorf("list of %q: has a critical extension, as lists have that name changes, or a part of what is revoked, only; want a complete one", l.Issuer)
		}
		r.add(l, by)
		return nil
	})
	if err == nil && len(r.lists) == 0 {
		err = errors.New("no revocation list (X509 CRL) in the file")
	}
	return r, err
}

// signer is the authority that has signed a list, nil for none of them.
func signer(l *x509.RevocationList, authorities []*x509.Certificate) *x509.Certificate {
	for _, a := range authorities {
		if bytes.Equal(a.RawSubject, l.RawIssuer) && l.CheckSignatureFrom(a) == nil {
			return a
		}
	}
	return nil
}

// complete tells whether a list names all that its authority has revoked. Those
// that do not say so by an extension that is critical (RFC 5280 §5.2.4, §5.2.5,
// §5.3.3), and whoever does not know such a one must not use the list.
func complete(l *x509.RevocationList) bool {
	critical := func(e pkix.Extension) bool { return e.Critical }
	return !slices.ContainsFunc(l.Extensions, critical) &&
		!slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return slices.ContainsFunc(e.Extensions, critical) })
}

// add takes a list, unless a newer one of its authority is there.
func (r *revocations) add(l *x509.RevocationList, by *x509.Certificate) {
	n := &revocationList{
		by: by.RawSubjectPublicKeyInfo, number: l.Number, until: l.NextUpdate,
		serials: make(map[string]struct{}, len(l.RevokedCertificateEntries)),
	}
	for _, e := range l.RevokedCertificateEntries {
		n.serials[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	name := string(l.RawIssuer)
	i := slices.IndexFunc(r.lists[name], func(old *revocationList) bool { return bytes.Equal(old.by, n.by) })
	if i < 0 {
		r.lists[name] = append(r.lists[name], n)
		return
	}
	old := r.lists[name][i]
	if old.number == nil || l.Number == nil || old.number.Cmp(l.Number) <= 0 {
		r.lists[name][i] = n
	}
}

// of are the lists of the authority of chain[i]: the next in the chain, or, for
// one that is trusted by itself, all of that name.
func (r *revocations) of(chain []*x509.Certificate, i int) (found []*revocationList) {
	for _, l := range r.lists[string(chain[i].RawIssuer)] {
		if i == len(chain)-1 || bytes.Equal(l.by, chain[i+1].RawSubjectPublicKeyInfo) {
			found = append(found, l)
		}
	}
	return found
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
		lists := r.of(chain, i)
		if len(lists) == 0 && i == 0 {
			return &certificateError{fmt.Sprintf("its authority %q has no revocation list", c.Issuer)}
		}
		for _, l := range lists {
			if !l.until.IsZero() && now.After(l.until) {
				return &certificateError{fmt.Sprintf("the revocation list of %q is out of date since %s", c.Issuer, l.until.Format(time.RFC3339))}
			}
			if _, revoked := l.serials[string(c.SerialNumber.Bytes())]; revoked {
				return &certificateError{fmt.Sprintf("%q, serial number %x, is revoked", c.Subject, c.SerialNumber)}
			}
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
