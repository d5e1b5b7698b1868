package broker_test

import (
	"crypto/tls"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// plainListener hides that its connections are TCP.
type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return struct{ net.Conn }{nc}, err
}

// TestStreams: connections that have a waiting goroutine: TLS, and TCP as on
// systems without epoll.
func TestStreams(t *testing.T) {
	source := httptest.NewTLSServer(nil) // for its certificate
	defer source.Close()
	wires := map[string]struct {
		listen func(net.Listener) net.Listener
		dial   func(net.Conn) net.Conn
	}{
		"tls": {
			func(l net.Listener) net.Listener {
				return tls.NewListener(l, &tls.Config{Certificates: source.TLS.Certificates})
			},
			func(nc net.Conn) net.Conn { return tls.Client(nc, &tls.Config{InsecureSkipVerify: true}) },
		},
		"tcp": {
			func(l net.Listener) net.Listener { return plainListener{l} },
			func(nc net.Conn) net.Conn { return nc },
		},
	}
	for name, w := range wires {
		t.Run(name, func(t *testing.T) {
			n := start(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			n.serve(w.listen(l))
			connect := func(id string) *mqtttest.Client {
				nc, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				c := mqtttest.Over(t, w.dial(nc), packet.V5)
				c.Connect(mqtttest.ID(id))
				return c
			}
			a, b := connect("a"), connect("b")
			a.AutoAck = true
			a.Subscribe("t", 1)
			long := strings.Repeat("x", 300<<10)
			for _, qos := range []packet.QoS{0, 1} {
				for _, text := range []string{"short", long} {
					b.Publish("t", text, qos)
					a.ExpectPublish("t", text)
				}
			}
			a.WriteRaw(append([]byte{0x36, 0}, make([]byte, 100<<10)...)...)
			a.ExpectDisconnect(packet.CodeMalformedPacket)
			connect("b")
			b.ExpectDisconnect(packet.CodeSessionTakenOver)
			n.awaitConnections(1)
		})
	}
}
