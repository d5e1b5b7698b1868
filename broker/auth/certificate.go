package auth

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker"
)

// Certificates is an Authenticator of clients that have shown a certificate,
// which the listener has verified. Its names come before the User Name that the
// client says.
type Certificates struct{ username, clientID func(*broker.Peer) string }

// certificateNames are the parts of a certificate that can name a client.
var certificateNames = map[string]func(*x509.Certificate) string{
	"cn": nil, // is the Peer's: a proxy may have told it
	// dn is the whole Distinguished Name in the order of RFC 4514: CN=device,O=plant.
	"dn":        func(c *x509.Certificate) string { return c.Subject.String() },
	"san-dns":   func(c *x509.Certificate) string { return first(c.DNSNames) },
	"san-email": func(c *x509.Certificate) string { return first(c.EmailAddresses) },
	"san-uri": func(c *x509.Certificate) string {
		if len(c.URIs) == 0 {
			return ""
		}
		return c.URIs[0].String()
	},
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// NewCertificates takes the user name, and the Client Identifier if clientID is
// not empty, from cn, dn, san-dns, san-email or san-uri: of several names the
// first. Of a certificate that a trusted proxy has verified only cn is known.
func NewCertificates(username, clientID string) (*Certificates, error) {
	if _, ok := certificateNames[username]; !ok {
		return nil, fmt.Errorf("certificate: username: %q: want one of %s", username, knownCertificateNames())
	}
	if _, ok := certificateNames[clientID]; clientID != "" && !ok {
		return nil, fmt.Errorf("certificate: client-id: %q: want one of %s", clientID, knownCertificateNames())
	}
	c := &Certificates{username: nameFrom(username)}
	if clientID != "" {
		c.clientID = nameFrom(clientID)
	}
	return c, nil
}

func knownCertificateNames() string {
	var names []string
	for n := range certificateNames {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// nameFrom finds a name in what has been verified, and nowhere else.
func nameFrom(part string) func(*broker.Peer) string {
	return func(p *broker.Peer) string {
		switch {
		case part == "cn":
			return p.CertifiedName()
		case p.TLS != nil && len(p.TLS.VerifiedChains) > 0:
			return certificateNames[part](p.TLS.VerifiedChains[0][0])
		}
		return ""
	}
}

// Authenticate is part of broker.Authenticator.
func (s *Certificates) Authenticate(_ context.Context, c *broker.Credentials) (*broker.Identity, error) {
	p := c.Peer
	if p == nil || p.CommonName == "" && (p.TLS == nil || len(p.TLS.VerifiedChains) == 0) {
		return nil, ErrNotMine
	}
	who := &broker.Identity{By: "certificate", Username: s.username(p)}
	if who.Username == "" {
		return nil, fmt.Errorf("%w: the certificate has no name to be the user's", broker.ErrNotAuthorized)
	}
	if s.clientID != nil {
		if who.ClientID = s.clientID(p); who.ClientID == "" {
			return nil, fmt.Errorf("%w: the certificate has no name to be the client identifier", broker.ErrNotAuthorized)
		}
		if !c.Assigned && c.ClientID != who.ClientID {
			return nil, fmt.Errorf("%w: the certificate is for another client identifier", broker.ErrNotAuthorized)
		}
	}
	if err := validNames(who); err != nil {
		return nil, err
	}
	return who, nil
}
