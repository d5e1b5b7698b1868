package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

var listeningLine = regexp.MustCompile(`msg=listening listener=(\w+) .* addr=(\S+)`)

// TestServeOverEveryTransport: the listeners of keys and of the file, on a node
// that has none of plain TCP.
func TestServeOverEveryTransport(t *testing.T) {
	dir := t.TempDir()
	cert, key := keyPair(t, dir)
	file := filepath.Join(dir, "shoal.yaml")
	if err := os.WriteFile(file, []byte("listeners:\n- {name: extra, addr: \"127.0.0.1:0\", protocol: ws, path: /extra}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startNode(t, filepath.Join(dir, "data"), "--config="+file, "--mqtt-addr=off", "--mqtts-addr=127.0.0.1:0",
		"--ws-addr=127.0.0.1:0", "--wss-addr=127.0.0.1:0", "--unix-socket="+filepath.Join(dir, "s"), "--tls-cert="+cert, "--tls-key="+key)
	addr := map[string]string{}
	for _, m := range listeningLine.FindAllStringSubmatch(p.said.String(), -1) {
		addr[m[1]] = m[2]
	}
	clients := map[string]*mqtttest.Client{
		"mqtts": mqtttest.TLS(t, addr["mqtts"], nil, packet.V5),
		"ws":    mqtttest.WebSocketTest(t, "ws://"+addr["ws"]+"/mqtt", nil, packet.V311),
		"wss":   mqtttest.WebSocketTest(t, "wss://"+addr["wss"]+"/mqtt", nil, packet.V5),
		"extra": mqtttest.WebSocketTest(t, "ws://"+addr["extra"]+"/extra", nil, packet.V5),
	}
	nc, err := net.Dial("unix", addr["unix"])
	if err != nil {
		t.Fatal(err)
	}
	clients["unix"] = mqtttest.Over(t, nc, packet.V5)
	for name, c := range clients {
		c.Connect(mqtttest.ID(name))
		c.Subscribe(name, 1)
	}
	for from, c := range clients {
		for to, other := range clients {
			if from == to {
				continue
			}
			c.Publish(to, from, 1)
			got := other.ExpectPublish(to, from)
			other.Write(&packet.Ack{Type: packet.TypePuback, PacketID: got.PacketID})
		}
	}
}

// keyPair writes a certificate for 127.0.0.1 and its key.
func keyPair(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", der)
}
