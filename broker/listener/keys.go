package listener

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
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
	from   *TLS
	now    atomic.Pointer[tls.Config]
	digest [sha256.Size]byte // of the files last tried
}

// readKeys reads the files for the first time.
func readKeys(from *TLS) (*keys, error) {
	k := &keys{from: from}
	if _, err := k.reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// config is for one handshake.
func (k *keys) config() *tls.Config { return k.now.Load() }

// watch reloads until ctx ends.
func (k *keys) watch(ctx context.Context, every time.Duration, log *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		changed, err := k.reload()
		switch {
		case err != nil && err.Error() != last:
			last = err.Error()
			log.Error("TLS files have changed and cannot be used: those from before stay in force", "error", err)
		case err == nil && changed:
			last = ""
			log.Info("TLS files have changed: new connections use them", "certificate", k.from.CertFile)
		}
	}
}

// reload reads the files and, if they have changed, puts them in force.
func (k *keys) reload() (changed bool, err error) {
	var f pemFiles
	for _, file := range []struct {
		path string
		into *[]byte
	}{{k.from.CertFile, &f.cert}, {k.from.KeyFile, &f.key}, {k.from.ClientCAFile, &f.ca}, {k.from.CRLFile, &f.crl}} {
		if file.path == "" {
			continue
		}
		if *file.into, err = readFile(file.path); err != nil {
			k.digest = [sha256.Size]byte{} // whatever comes next is news
			return false, err
		}
	}
	digest := f.digest()
	if digest == k.digest {
		return false, nil
	}
	k.digest = digest
	config, err := k.from.config(&f)
	if err != nil {
		return false, err
	}
	k.now.Store(config)
	return true, nil
}

// pemFiles are the contents of the files.
type pemFiles struct{ cert, key, ca, crl []byte }

func (f *pemFiles) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, b := range [][]byte{f.cert, f.key, f.ca, f.crl} {
		fmt.Fprintf(h, "%d:", len(b))
		h.Write(b)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

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
