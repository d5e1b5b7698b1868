package listener_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/broker/watch"
)

// tlsDoor is a TLS listener with client certificates.
type tlsDoor struct {
	*node
	addr    string
	ca      *authority
	files   *files
	config  *listener.TLS
	watcher *watch.Watcher
}

// startTLS opens one: change may set what there is beside the server's keys.
func startTLS(t *testing.T, change ...func(*tlsDoor)) *tlsDoor {
	t.Helper()
	d := &tlsDoor{node: start(t), ca: newAuthority(t, "ca"), files: newFiles(t), config: &listener.TLS{}}
	d.watcher = watch.New(slog.New(slog.NewTextHandler(d.log, nil)))
	d.config.CertFile, d.config.KeyFile = d.files.keyPair(d.ca.issue("server"))
	for _, f := range change {
		f(d)
	}
	d.addr = d.listen(listener.Config{TLS: d.config, Watch: d.watcher})
	return d
}

// mutual asks for the clients' certificates.
func mutual(mode listener.ClientCert) func(*tlsDoor) {
	return func(d *tlsDoor) {
		d.config.ClientCert, d.config.ClientCAFile = mode, d.files.write("ca.pem", d.ca.pem())
	}
}

// client is a configuration of a client with certificates.
func (d *tlsDoor) client(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: d.ca.pool(), ServerName: "127.0.0.1", Certificates: certs}
}

// try connects as far as CONNACK. Whether the server has refused a certificate is
// seen with the first read in TLS 1.3.
func (d *tlsDoor) try(c *tls.Config, id string) (*tls.Conn, error) {
	nc, err := net.Dial("tcp", d.addr)
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { nc.Close() })
	over := tls.Client(nc, c)
	ack, err := mqtttest.NewConn(over, packet.V5).Connect(packet.Connect{ClientID: id, CleanStart: true}, mqtttest.Timeout)
	if err == nil && ack.Code != packet.CodeSuccess {
		err = errors.New(ack.Code.String())
	}
	return over, err
}

func (d *tlsDoor) mustIn(c *tls.Config, id string) *tls.Conn {
	d.t.Helper()
	over, err := d.try(c, id)
	if err != nil {
		d.t.Fatalf("%s: %v\n%s", id, err, d.log)
	}
	return over
}

// refused is a client that may not come in; the failure counts as kind, and the
// log says why.
func (d *tlsDoor) refused(c *tls.Config, kind, why string) {
	d.t.Helper()
	before := d.metric("shoal_listener_handshakes_failed_total", "door", kind)
	if _, err := d.try(c, "x"); err == nil {
		d.t.Fatalf("let in, want %q", why)
	}
	d.failed(kind, before+1, why)
}

func (d *node) failed(kind string, count float64, why string) {
	d.t.Helper()
	await(d.t, func() error {
		if got := d.metric("shoal_listener_handshakes_failed_total", "door", kind); got < count {
			return errors.New(kind + " is not counted")
		}
		if !strings.Contains(d.log.String(), why) {
			return errors.New("the log does not say " + why + ":\n" + d.log.String())
		}
		return nil
	})
}

func await(t testing.TB, f func() error) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	d := startTLS(t, mutual(listener.RequireClientCert))
	d.mustIn(d.client(d.ca.issue("device")), "good")
	if p := d.peers.of("good"); len(p.TLS.VerifiedChains) != 1 || p.TLS.PeerCertificates[0].Subject.CommonName != "device" {
		t.Errorf("peer %+v", p.TLS)
	}
	other := newAuthority(t, "ca")
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	early := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }
	server := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	// A Go client sends no certificate of an authority that is not asked for,
	// unless it is made to.
	insist := func(cert tls.Certificate) *tls.Config {
		c := d.client()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		return c
	}
	d.refused(d.client(), broker.OpenCertificate, "none was shown")
	d.refused(insist(other.issue("device")), broker.OpenCertificate, "unknown authority")
	d.refused(insist(d.ca.issue("device", expired)), broker.OpenCertificate, "expired or is not yet valid")
	d.refused(insist(d.ca.issue("device", early)), broker.OpenCertificate, "expired or is not yet valid")
	d.refused(insist(d.ca.issue("device", server)), broker.OpenCertificate, "incompatible key usage")
}

func TestRequestedCertificates(t *testing.T) {
	d := startTLS(t, mutual(listener.RequestClientCert))
	d.mustIn(d.client(), "none")
	d.mustIn(d.client(d.ca.issue("device")), "shown")
	if n, s := d.peers.of("none").TLS, d.peers.of("shown").TLS; len(n.VerifiedChains) != 0 || len(s.VerifiedChains) != 1 {
		t.Errorf("%v, %v", n.VerifiedChains, s.VerifiedChains)
	}
	other := newAuthority(t, "ca").issue("device")
	c := d.client()
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other, nil }
	d.refused(c, broker.OpenCertificate, "unknown authority")
}

func TestVersions(t *testing.T) {
	d := startTLS(t)
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := d.client()
		c.MinVersion, c.MaxVersion = v, v
		d.mustIn(c, "v")
	}
	c := d.client()
	c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	d.refused(c, broker.OpenTLS, "unsupported versions")
	strict := startTLS(t, func(d *tlsDoor) { d.config.MinVersion = tls.VersionTLS13 })
	c = strict.client()
	c.MaxVersion = tls.VersionTLS12
	strict.refused(c, broker.OpenTLS, "unsupported versions")
	distrusting := d.client()
	distrusting.RootCAs = x509.NewCertPool()
	d.refused(distrusting, broker.OpenTLS, "does it trust this server's certificate?")
}

func TestRevocation(t *testing.T) {
	later := time.Now().Add(time.Hour)
	var bad tls.Certificate
	d := startTLS(t, mutual(listener.RequireClientCert), func(d *tlsDoor) {
		bad = d.ca.issue("bad")
		d.config.CRLFile = d.files.write("crl.pem", d.ca.revoke(later, 1, bad))
	})
	good := d.ca.issue("good")
	d.mustIn(d.client(good), "good")
	d.refused(d.client(bad), broker.OpenCertificate, "is revoked")

	// Not with a ticket of before it was revoked either.
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		d.files.write("crl.pem", d.ca.revoke(later, 2, bad))
		d.watcher.Look()
		resuming := d.client(good)
		resuming.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		resuming.MinVersion, resuming.MaxVersion = v, v
		d.mustIn(resuming, "first")
		before := d.mustIn(resuming, "second")
		if !before.ConnectionState().DidResume {
			t.Error("sessions are not resumed: the test shows nothing")
		}
		if p := d.peers.of("second"); len(p.TLS.VerifiedChains) == 0 {
			t.Error("a resumed session has lost its certificate")
		}
		d.files.write("crl.pem", d.ca.revoke(later, 3, bad, good))
		d.watcher.Look()
		d.refused(resuming, broker.OpenCertificate, "serial number 4, is revoked")
		// The connection from before goes on.
		c := mqtttest.NewConn(before, packet.V5)
		if err := c.Send(&packet.Pingreq{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Receive(mqtttest.Timeout); err != nil {
			t.Errorf("connection of before: %v", err)
		}
	}

	d.files.write("crl.pem", d.ca.revoke(time.Now().Add(-time.Minute), 4))
	d.watcher.Look()
	d.refused(d.client(good), broker.OpenCertificate, "is out of date since")
}

// TestRevocationByKey: of two authorities of one name, such as one before and
// after a change of its key, the list of neither undoes that of the other.
func TestRevocationByKey(t *testing.T) {
	later := time.Now().Add(time.Hour)
	var former *authority
	var bad, good tls.Certificate
	d := startTLS(t, func(d *tlsDoor) {
		former = newAuthority(d.t, "ca")
		bad, good = former.issue("bad"), former.issue("good")
		d.config.ClientCert = listener.RequireClientCert
		d.config.ClientCAFile = d.files.write("ca.pem", append(d.ca.pem(), former.pem()...))
		d.config.CRLFile = d.files.write("crl.pem", append(former.revoke(later, 1, bad), d.ca.revoke(later, 7)...))
	})
	d.mustIn(d.client(good), "good")
	d.mustIn(d.client(d.ca.issue("new")), "new")
	d.refused(d.client(bad), broker.OpenCertificate, "is revoked")
	// The serial number of another authority's certificate is nobody's.
	d.files.write("crl.pem", append(former.revoke(later, 2, bad, good), d.ca.revoke(later, 8)...))
	d.watcher.Look()
	d.mustIn(d.client(d.ca.issue("newer")), "newer")
	d.files.write("crl.pem", d.ca.revoke(later, 9))
	d.watcher.Look()
	d.refused(d.client(good), broker.OpenCertificate, "has no revocation list")
}

// TestPartialRevocation: a list of changes only does not stand for the whole.
func TestPartialRevocation(t *testing.T) {
	later := time.Now().Add(time.Hour)
	var bad tls.Certificate
	d := startTLS(t, mutual(listener.RequireClientCert), func(d *tlsDoor) {
		bad = d.ca.issue("bad")
		d.config.CRLFile = d.files.write("crl.pem", d.ca.revoke(later, 1, bad))
	})
	delta, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(2), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: later,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}},
	}, d.ca.cert, d.ca.key)
	if err != nil {
		t.Fatal(err)
	}
	d.files.write("crl.pem", append(d.ca.revoke(later, 1, bad), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: delta})...))
	d.watcher.Look()
	d.refused(d.client(bad), broker.OpenCertificate, "is revoked")
	if log := d.log.String(); !strings.Contains(log, "critical extension") {
		t.Errorf("the log does not say why the list is not taken:\n%s", log)
	}
}

// TestReload: what changes is used for new connections; what cannot be used
// changes nothing.
func TestReload(t *testing.T) {
	d := startTLS(t, mutual(listener.RequireClientCert))
	device := d.ca.issue("device")
	old := d.mustIn(d.client(device), "old")

	// A key without its certificate, a broken file, none: all stays as it is.
	serial := func() string {
		t.Helper()
		return d.mustIn(d.client(device), "look").ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	next := newFiles(t)
	next.keyPair(d.ca.issue("server"))
	key, err := os.ReadFile(next.dir + "/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	oldKey, err := os.ReadFile(d.config.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	d.files.write("key.pem", key)
	d.watcher.Look()
	if serial() != first || !strings.Contains(d.log.String(), "private key does not match public key") {
		t.Errorf("key of another certificate:\n%s", d.log)
	}
	d.files.write("key.pem", oldKey)
	d.files.write("ca.pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	d.watcher.Look()
	if serial() != first || !strings.Contains(d.log.String(), "ca.pem: before line 4") {
		t.Errorf("broken authorities:\n%s", d.log)
	}
	if err := os.Remove(d.config.ClientCAFile); err != nil {
		t.Fatal(err)
	}
	d.watcher.Look()
	if serial() != first {
		t.Error("a missing file changed something")
	}

	// Another certificate, and another authority of the clients.
	other := newAuthority(t, "other")
	d.files.write("ca.pem", other.pem())
	d.files.keyPair(d.ca.issue("server"))
	d.watcher.Look()
	insist := d.client()
	insist.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &device, nil }
	d.refused(insist, broker.OpenCertificate, "unknown authority")
	device = other.issue("device")
	if serial() == first {
		t.Error("the new certificate is not used")
	}
	if _, err := old.Write((&packet.Pingreq{}).Append(nil, packet.V5)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(old, make([]byte, 2)); err != nil {
		t.Errorf("connection of before: %v", err)
	}
}

// TestWrongDoor: those who speak something else are told, in the log, and counted.
func TestWrongDoor(t *testing.T) {
	d := startTLS(t)
	for text, why := range map[string]string{
		"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00": "MQTT without TLS on a TLS listener",
		"GET / HTTP/1.1\r\n\r\n":                           "HTTP without TLS",
	} {
		before := d.metric("shoal_listener_handshakes_failed_total", "door", broker.OpenNotTLS)
		nc := dial(t, "tcp", d.addr)
		if _, err := nc.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		d.failed(broker.OpenNotTLS, before+1, why)
	}
	n := start(t)
	plain := n.listen(listener.Config{Name: "plain"})
	c := tls.Client(dial(t, "tcp", plain), d.client())
	if err := c.Handshake(); err == nil {
		t.Fatal("TLS on a listener without")
	}
	await(t, func() error {
		if !strings.Contains(n.log.String(), "looks_like=TLS") {
			return errors.New(n.log.String())
		}
		return nil
	})
	nc := dial(t, "tcp", plain)
	if _, err := nc.Write([]byte("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(nc); len(b) > 0 {
		t.Errorf("answer %q", b)
	}
	await(t, func() error {
		if !strings.Contains(n.log.String(), "looks_like=HTTP") {
			return errors.New(n.log.String())
		}
		return nil
	})
}

// TestHalfOpen: who does not come to MQTT in time, or as one too many, is closed,
// at whatever point.
func TestHalfOpen(t *testing.T) {
	ca, f := newAuthority(t, "ca"), newFiles(t)
	keys := &listener.TLS{}
	keys.CertFile, keys.KeyFile = f.keyPair(ca.issue("server"))
	doors := map[string]struct {
		config listener.Config
		send   string
	}{
		"tls":   {listener.Config{TLS: keys}, "\x16\x03\x01\x02\x00\x01"},
		"ws":    {listener.Config{WebSocket: &listener.WebSocket{Path: "/mqtt"}}, "GET /mqtt HTTP/1.1\r\nHost:"},
		"proxy": {listener.Config{ProxyFrom: loopback}, "PROXY TCP4 1.2.3.4"},
		"bare":  {listener.Config{ProxyFrom: loopback}, "PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n"},
	}
	for name, door := range doors {
		t.Run(name+" late", func(t *testing.T) {
			n := start(t, func(c *broker.Config) { c.ConnectTimeout = 300 * time.Millisecond })
			nc := dial(t, "tcp", n.listen(door.config))
			nc.Write([]byte(door.send))
			if _, err := io.ReadAll(nc); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				t.Fatal(err)
			}
			if name != "bare" {
				n.failed(broker.OpenLate, 1, "connection did not come to MQTT")
			}
		})
		t.Run(name+" one too many", func(t *testing.T) {
			n := start(t, func(c *broker.Config) { c.MaxHalfOpen, c.ConnectTimeout = 2, time.Hour })
			addr := n.listen(door.config)
			first := dial(t, "tcp", addr)
			first.Write([]byte(door.send))
			for range 4 {
				dial(t, "tcp", addr).Write([]byte(door.send))
			}
			first.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.ReadAll(first); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the oldest is not closed: %v", err)
			}
		})
		t.Run(name+" close", func(t *testing.T) { // start's cleanup closes the broker
			n := start(t, func(c *broker.Config) { c.ConnectTimeout = time.Hour })
			nc := dial(t, "tcp", n.listen(door.config))
			nc.Write([]byte(door.send))
			await(t, func() error {
				if n.metric("shoal_connections") == 0 {
					return errors.New("not accepted")
				}
				return nil
			})
		})
	}
}
