package listener

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/watch"
)

// ClientCert says whether clients have to show a certificate.
type ClientCert int

const (
	// NoClientCert: none is asked for.
	NoClientCert ClientCert = iota
	// RequestClientCert: one that is shown must be good.
	RequestClientCert
	// RequireClientCert: a good one must be shown.
	RequireClientCert
)

// TLS says with which keys a listener speaks TLS. Files are PEM, and are read
// again when they change.
type TLS struct {
	CertFile, KeyFile string
	// ClientCAFile has the authorities of the clients' certificates. It is needed
	// unless ClientCert is NoClientCert.
	ClientCAFile string
	ClientCert   ClientCert
	// CRLFile has the revocation lists of these authorities; empty for none.
	CRLFile string
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13; 0 is 1.2.
	MinVersion uint16
}

// keys are what is in force. Each version has a tls.Config of its own, and that
// its own keys for session tickets: a ticket can never bring a client in that the
// present files would not.
type keys struct {
	from *TLS
	now  atomic.Pointer[tls.Config]
}

// readKeys reads the files, and again when they change if there is a watcher.
func readKeys(from *TLS, name string, w *watch.Watcher) (*keys, error) {
	k := &keys{from: from}
	if w == nil {
		return k, k.reload()
	}
	paths := []string{from.CertFile, from.KeyFile, from.ClientCAFile, from.CRLFile}
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == "" })
	return k, w.Add("TLS of listener "+name, paths, k.reload)
}

// config is for one handshake.
func (k *keys) config() *tls.Config { return k.now.Load() }

// reload puts what the files say in force, all of it or nothing.
func (k *keys) reload() (err error) {
	var f pemFiles
	for _, file := range []struct {
		path string
		into *[]byte
	}{{k.from.CertFile, &f.cert}, {k.from.KeyFile, &f.key}, {k.from.ClientCAFile, &f.ca}, {k.from.CRLFile, &f.crl}} {
		if file.path == "" {
			continue
		}
		if *file.into, err = readFile(file.path); err != nil {
			return err
		}
	}
	config, err := k.from.config(&f)
	if err != nil {
		return err
	}
	k.now.Store(config)
	return nil
}

// pemFiles are the contents of the files.
type pemFiles struct{ cert, key, ca, crl []byte }

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFileBytes)
	}
	return b, err
}

// config makes a tls.Config of the files.
func (t *TLS) config(f *pemFiles) (*tls.Config, error) {
	cert, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s and key %s: %w", t.CertFile, t.KeyFile, err)
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   max(t.MinVersion, tls.VersionTLS12),
	}
	switch t.ClientCert {
	case NoClientCert:
		return c, nil
	case RequestClientCert:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	case RequireClientCert:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if t.ClientCAFile == "" {
		return nil, errors.New("client certificates are asked for, but there are no authorities (client-ca) to check them with")
	}
	authorities, err := certificates(f.ca)
	if err != nil {
		return nil, fmt.Errorf("client authorities %s: %w", t.ClientCAFile, err)
	}
	c.ClientCAs = x509.NewCertPool()
	for _, a := range authorities {
		c.ClientCAs.AddCert(a)
	}
	if t.CRLFile == "" {
		return c, nil
	}
	r, err := readRevocations(f.crl, authorities)
	if err != nil {
		return nil, fmt.Errorf("revocation lists %s: %w", t.CRLFile, err)
	}
	// Unlike VerifyPeerCertificate this is asked for resumed sessions as well.
	c.VerifyConnection = func(s tls.ConnectionState) error { return r.check(s.VerifiedChains, time.Now()) }
	return c, nil
}

// certificates are those of a PEM file, at least one.
func certificates(pem []byte) (all []*x509.Certificate, err error) {
	err = eachBlock(pem, "CERTIFICATE", func(der []byte) error {
		c, err := x509.ParseCertificate(der)
		all = append(all, c)
		return err
	})
	if err == nil && len(all) == 0 {
		err = errors.New("no certificate in the file")
	}
	return all, err
}

// blockLine is the line of a file on which what is left of it begins.
func blockLine(file, rest []byte) int {
	return bytes.Count(file[:len(file)-len(rest)], []byte("\n")) + 1
}
