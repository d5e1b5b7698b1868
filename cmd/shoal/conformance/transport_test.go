package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/listener"
	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// transport is what carries the connections of a scene.
type transport int

const (
	overTCP transport = iota
	overTLS
	overWebSocket
	overWebSocketTLS
	transports
)

func (o transport) String() string {
	return [transports]string{"TCP", "TLS", "WebSocket", "WebSocket and TLS"}[o]
}

// crossSection are the rules that hold over every transport: each packet type,
// large packets, cut ones and bad ones, both ways of ending, silence.
var crossSection = []string{
	"TestEncoding/004", "TestEncoding/006", "TestEncoding/010", "TestEncoding/019", "TestFields/130", "TestFields/135",
	"TestConnect/028", "TestConnect/030", "TestConnect/031", "TestConnect/033", "TestConnect/035", "TestConnect/042",
	"TestSession/046", "TestSession/052", "TestWill/054", "TestWill/055", "TestWill/065", "TestRetained/070", "TestRetained/073",
	"TestPublish/083", "TestPublish/084", "TestPublish/087", "TestPublish/090", "TestQoS/092", "TestQoS/094", "TestQoS/099",
	"TestQoS/106", "TestQoS/108", "TestSubscribe/114", "TestSubscribe/119", "TestSubscribe/121", "TestShared/125", "TestFlow/133", "TestFlow/134", "TestFlow/160",
	"TestProperties/157", "TestProperties/159",
}

// checkTransports runs a rule of the cross-section over each transport but TCP,
// in the first of its variants.
func (r *rule) checkTransports(t *testing.T) {
	number, _, _ := strings.Cut(r.name, " ")
	if !slices.Contains(crossSection, t.Name()+"/"+number) {
		return
	}
	v, keep := packet.V5, r.in&transient == 0
	if r.in&v5 == 0 {
		v = packet.V311
	}
	for over := overTLS; over < transports; over++ {
		t.Run(fmt.Sprintf("%s/%s over %s", r.name, v, over), func(t *testing.T) {
			t.Parallel()
			r.try(t, v, keep, over)
		})
	}
}

// keys are the files of a certificate for the loopback interface, and what
// clients need to trust it.
type keys struct {
	cert, key string
	client    *tls.Config
}

var certificate = sync.OnceValues(func() (*keys, error) {
	k := &keys{cert: filepath.Join(scratch, "cert.pem"), key: filepath.Join(scratch, "key.pem"), client: &tls.Config{RootCAs: x509.NewCertPool()}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shoal"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	k.client.RootCAs.AppendCertsFromPEM(public)
	return k, errors.Join(os.WriteFile(k.cert, public, 0o600),
		os.WriteFile(k.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
})

// listen opens a listener for each transport and serves on it.
func (n *node) listen() error {
	k, err := certificate()
	if err != nil {
		return err
	}
	for over := range transports {
		c := listener.Config{Name: over.String(), Network: "tcp", Addr: "127.0.0.1:0"}
		if over == overTLS || over == overWebSocketTLS {
			c.TLS = &listener.TLS{CertFile: k.cert, KeyFile: k.key}
		}
		if over >= overWebSocket {
			c.WebSocket = &listener.WebSocket{Path: "/mqtt"}
		}
		l, err := listener.Listen(c)
		if err != nil {
			return err
		}
		n.addrs[over] = l.Addr().String()
		go func() {
			n.served <- n.broker.Serve(context.Background(), &broker.Listener{Listener: l, Name: c.Name})
		}()
	}
	return nil
}

// dial connects to the node.
func (n *node) dial(over transport, v packet.Version) (*mqtttest.Conn, error) {
	k, err := certificate()
	if err != nil {
		return nil, err
	}
	addr := n.addrs[over]
	switch over {
	case overTLS:
		return mqtttest.DialTLS(addr, k.client.Clone(), v, mqtttest.Timeout)
	case overWebSocket:
		return dialCut("ws://"+addr+"/mqtt", nil, v)
	case overWebSocketTLS:
		return dialCut("wss://"+addr+"/mqtt", k.client.Clone(), v)
	}
	return mqtttest.Dial(addr, v, mqtttest.Timeout)
}

func dialCut(url string, config *tls.Config, v packet.Version) (*mqtttest.Conn, error) {
	nc, err := mqtttest.WebSocket(url, config, mqtttest.Timeout)
	return mqtttest.NewConn(cut{nc}, v), err
}

// cut is a WebSocket whose frames are not packets: they cut them, and hold several
// ([MQTT-6.0.0-2]).
type cut struct{ net.Conn }

// Write writes the first bytes in frames of 1, 2 and 5, and the rest in one.
func (c cut) Write(b []byte) (n int, err error) {
	for _, size := range [...]int{1, 2, 5, len(b)} {
		if size = min(size, len(b)-n); size == 0 {
			break
		}
		m, err := c.Conn.Write(b[n : n+size])
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}
