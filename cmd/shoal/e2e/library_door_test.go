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
	"slices"
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
	c, d := startDoors(t)
	other, _, _ := authority(t, t.TempDir(), time.Now().Add(time.Hour))
	libraries := append(slices.Clone(libraries), native...)
	for _, lib := range libraries {
		t.Run("mqtts/"+lib.name+"/another authority", func(t *testing.T) {
			t.Parallel()
			x := lib.open(t, lib.versions[0])
			t.Cleanup(x.close)
			must(t, x.through(door{"mqtts", other}))
			if _, err := x.connect(d.addrs["mqtts"][0], lib.name+"-wary", true); err == nil {
				t.Error("it connected to a server whose certificate it must not trust")
			}
		})
	}
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		// Debian's are built without WebSocket.
		t.Run("mqtts/mosquitto-clients/"+version, func(t *testing.T) {
			t.Parallel()
			n := *c.nodes[0]
			n.mqtt = d.addrs["mqtts"][0]
			args := []string{"-V", version, "--cafile", d.ca, "-t", "door/mosquitto/" + version, "-q", "1"}
			tool(t, "", "mosquitto_pub", &n, append(args, "-r", "-m", "kept")...)
			if got := tool(t, "", "mosquitto_sub", &n, append(args, "-C", "1")...); got != "kept\n" {
				t.Errorf("got %q", got)
			}
		})
	}
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
	s := enters(t, open, addrs[0], name, false, nil)
	subscribed(t, s, topic+"/#", 2)
	publisher := enters(t, open, addrs[1], name+"-publisher", true, nil)
	hello := received{topic: topic + "/0", payload: "hello"}
	untilDelivered(t, publisher, s, hello, hello)
	for qos := byte(1); qos <= 2; qos++ {
		m := received{topic: fmt.Sprint(topic, "/", qos), payload: "kept", qos: qos, retain: true}
		must(t, publisher.publish(m))
		m.retain = false
		expect(t, s, m)
	}
	will := received{topic: topic + "/will", payload: "gone", qos: 1}
	enters(t, open, addrs[2], name+"-mortal", true, &will).cut()
	expect(t, s, will)
	must(t, s.disconnect())

	queued := received{topic: topic + "/queued", payload: "for later", qos: 2}
	must(t, publisher.publish(queued))
	s = enters(t, open, addrs[2], name, false, nil)
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

// enters is a library that has connected: a cluster under load may answer that it
// is not available (0x88) for a moment, and clients come again. That a session was
// there shows in its queue: Paho C does not tell Session Present of MQTT 5.
func enters(t *testing.T, open func() library, addr, name string, clean bool, will *received) (x library) {
	t.Helper()
	eventually(t, "connect "+name, func() error {
		x = open()
		if will != nil {
			must(t, x.will(*will))
		}
		_, err := x.connect(addr, name, clean)
		return err
	})
	return x
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
