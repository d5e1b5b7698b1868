package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
)

// door is a transport: what a client speaks before MQTT.
type door struct {
	scheme string // mqtt, mqtts, ws, wss; empty is mqtt
	ca     string // PEM file of who signed the nodes' certificates
}

// url is how a WebSocket is called.
func (d door) url(addr string) string { return d.scheme + "://" + addr + "/mqtt" }

// trust checks the server's certificate against the test's authority.
func (d door) trust() *tls.Config {
	roots := x509.NewCertPool()
	if b, err := os.ReadFile(d.ca); err == nil {
		roots.AppendCertsFromPEM(b)
	}
	return &tls.Config{RootCAs: roots}
}

func (d door) dial(addr string) (net.Conn, error) {
	switch d.scheme {
	case "mqtts":
		return tls.Dial("tcp", addr, d.trust())
	case "ws", "wss":
		return mqtttest.WebSocket(d.url(addr), d.trust(), patience)
	default:
		return net.Dial("tcp", addr)
	}
}

// doors are the addresses of a cluster's nodes by scheme.
type doors struct {
	ca, cert, key string
	addrs         map[string][]string
}

// startDoors starts three nodes that listen for every transport.
func startDoors(t *testing.T) (*cluster, doors) {
	t.Helper()
	c := newCluster(t, 6, t.TempDir())
	d := doors{addrs: map[string][]string{}}
	d.ca, d.cert, d.key = authority(t, t.TempDir(), time.Now().Add(time.Hour))
	for _, n := range c.nodes {
		d.addrs["mqtt"] = append(d.addrs["mqtt"], n.mqtt)
		for _, scheme := range []string{"mqtts", "ws", "wss"} {
			addr := loopback(freePort(t))
			d.addrs[scheme] = append(d.addrs[scheme], addr)
			n.flags = append(n.flags, "--"+scheme+"-addr="+addr)
		}
		n.flags = append(n.flags, "--tls-cert="+d.cert, "--tls-key="+d.key)
	}
	c.start()
	c.awaitReady()
	return c, d
}

// authority makes an authority and a certificate of 127.0.0.1 that it signed, and
// returns their files.
func authority(t testing.TB, dir string, until time.Time) (caFile, certFile, keyFile string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	return write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
}

// TestRealClientsThroughEveryDoor: other people's clients over every transport,
// which check the server's certificate where there is one.
func TestRealClientsThroughEveryDoor(t *testing.T) {
	_, d := startDoors(t)
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		for _, lib := range libraries {
			for _, version := range lib.versions {
				t.Run(scheme+"/"+lib.name+"/"+version, func(t *testing.T) {
					t.Parallel()
					open := func() library {
						x := lib.open(t, version)
						t.Cleanup(x.close)
						must(t, x.through(door{scheme, d.ca}))
						return x
					}
					realDoor(t, d.addrs[scheme], fmt.Sprintf("%s-%s-%s", scheme, lib.name, version), open)
				})
			}
		}
	}
}

// realDoor: what passes a transport: messages of each QoS, retained ones, the Will
// of a connection that is cut, and the queue of a session that comes back.
func realDoor(t *testing.T, addrs []string, name string, open func() library) {
	topic := "door/" + name
	s, publisher, mortal := open(), open(), open()
	connected(t, s, addrs[0], name, false, false)
	subscribed(t, s, topic+"/#", 2)
	connected(t, publisher, addrs[1], name+"-publisher", true, false)
	hello := received{topic: topic + "/0", payload: "hello"}
	untilDelivered(t, publisher, s, hello, hello)
	for qos := byte(1); qos <= 2; qos++ {
		m := received{topic: fmt.Sprint(topic, "/", qos), payload: "kept", qos: qos, retain: true}
		must(t, publisher.publish(m))
		m.retain = false
		expect(t, s, m)
	}
	must(t, mortal.will(received{topic: topic + "/will", payload: "gone", qos: 1}))
	connected(t, mortal, addrs[2], name+"-mortal", true, false)
	mortal.cut()
	expect(t, s, received{topic: topic + "/will", payload: "gone", qos: 1})
	must(t, s.disconnect())

	queued := received{topic: topic + "/queued", payload: "for later", qos: 2}
	must(t, publisher.publish(queued))
	s = open()
	connected(t, s, addrs[2], name, false, true)
	for { // what has crossed DISCONNECT comes again
		if got := next(t, s); got == queued {
			break
		} else if got.payload != "gone" && got.payload != "kept" {
			t.Fatalf("got %+v, want %+v", got, queued)
		}
	}
	late := received{topic: topic + "/2", payload: "kept", qos: 2, retain: true}
	subscribed(t, publisher, late.topic, 2)
	expect(t, publisher, late)
	must(t, s.disconnect())
}

// next is the next message.
func next(t *testing.T, x library) received {
	t.Helper()
	select {
	case got := <-x.messages():
		return got
	case <-time.After(patience):
		t.Fatal("nothing came")
		return received{}
	}
}
