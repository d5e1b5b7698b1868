package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
)

// certificate is one with the given Common Names, in their order.
func certificate(t *testing.T, names ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"first.example", "last.example"},
		Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "plant"}}},
	}
	for _, n := range names {
		template.Subject.ExtraNames = append(template.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: n})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCertificates: names are of certificates that were verified, of several the
// first, and a client with another Client Identifier than its own is refused.
func TestCertificates(t *testing.T) {
	verified := func(c *x509.Certificate) *broker.Peer {
		return &broker.Peer{TLS: &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{c}}}}
	}
	one, two, none := certificate(t, "d1"), certificate(t, "d1", "admin"), certificate(t)
	for name, tc := range map[string]struct {
		username, clientID string
		peer               *broker.Peer
		id                 string // of CONNECT
		want               broker.Identity
		err                error
	}{
		"name":                 {"cn", "", verified(one), "x", broker.Identity{Username: "d1"}, nil},
		"first of two names":   {"cn", "cn", verified(two), "d1", broker.Identity{Username: "d1", ClientID: "d1"}, nil},
		"last of two names":    {"cn", "cn", verified(two), "admin", broker.Identity{}, broker.ErrNotAuthorized},
		"alternative name":     {"san-dns", "", verified(one), "x", broker.Identity{Username: "first.example"}, nil},
		"no name":              {"cn", "", verified(none), "x", broker.Identity{}, broker.ErrNotAuthorized},
		"no alternative name":  {"san-uri", "", verified(one), "x", broker.Identity{}, broker.ErrNotAuthorized},
		"another's identifier": {"san-dns", "cn", verified(one), "d2", broker.Identity{}, broker.ErrNotAuthorized},
		"not verified":         {"cn", "", &broker.Peer{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{one}}}, "x", broker.Identity{}, ErrNotMine},
		"by a proxy":           {"cn", "", &broker.Peer{CommonName: "d1"}, "x", broker.Identity{Username: "d1"}, nil},
		"proxies tell no more": {"dn", "", &broker.Peer{CommonName: "d1"}, "x", broker.Identity{}, broker.ErrNotAuthorized},
		"no certificate":       {"cn", "", &broker.Peer{}, "x", broker.Identity{}, ErrNotMine},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewCertificates(tc.username, tc.clientID)
			if err != nil {
				t.Fatal(err)
			}
			who, err := s.Authenticate(context.Background(), &broker.Credentials{ClientID: tc.id, HasUsername: true, Username: "root", Peer: tc.peer})
			if !errors.Is(err, tc.err) {
				t.Fatalf("%+v, %v; want %v", who, err, tc.err)
			}
			if err == nil && (who.Username != tc.want.Username || who.ClientID != tc.want.ClientID) {
				t.Errorf("%+v, want %+v", who, tc.want)
			}
		})
	}
	for _, bad := range [][2]string{{"", ""}, {"o", ""}, {"cn", "serial"}} {
		if _, err := NewCertificates(bad[0], bad[1]); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
