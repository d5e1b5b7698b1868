package raftnet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	a := &authority{cert, key, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) config(t *testing.T, ip string) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(ip)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: a.pool}
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := func(string) *tls.Config { return ca.config(t, "127.0.0.1") }
	ms, b := startCluster(t, 3, nil, clusterOptions{tls: good})
	apply(t, leader(t, ms), "one")

	for name, cfg := range map[string]*tls.Config{
		"no TLS":                nil,
		"no client certificate": {RootCAs: ca.pool},
		"other authority": func() *tls.Config {
			c := other.config(t, "127.0.0.1")
			c.RootCAs = ca.pool
			return c
		}(),
		"server not trusted": func() *tls.Config {
			c := ca.config(t, "127.0.0.1")
			c.RootCAs = other.pool
			return c
		}(),
		"server of another name": func() *tls.Config {
			c := ca.config(t, "127.0.0.1")
			c.ServerName = "elsewhere"
			return c
		}(),
	} {
		x := startMember(t, b, nil, "x", "d", clusterOptions{tls: func(string) *tls.Config { return cfg }})
		if err := heartbeat(x, ms[0].self, 1); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
