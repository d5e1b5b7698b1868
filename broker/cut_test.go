package broker_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// life is a client's life, a packet after the other, none of which waits for an
// answer.
func life(v packet.Version) (packets [][]byte) {
	aliased := publish("t/a", "alias", 0, 0)
	aliased.HasAlias, aliased.TopicAlias = true, 1
	short := &packet.Publish{HasAlias: true, TopicAlias: 1}
	if v != packet.V5 {
		short = publish("t/a", "", 0, 0)
	}
	for _, p := range []packet.Packet{
		&packet.Connect{
			ClientID: "c", CleanStart: true, HasUsername: true, Username: "user", HasPassword: true, Password: []byte("pass"),
			RequestProblemInfo: true, Will: &packet.Will{Topic: "w", Payload: []byte("gone")},
		},
		&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "s/+", QoS: 1}, {Filter: "s/#"}}},
		publish("t", "0", 0, 0),
		publish("t", "1", 1, 2),
		publish("t", "2", 2, 3),
		ack(packet.TypePubrel, 3),
		aliased,
		short,
		publish("t", string(make([]byte, 200)), 1, 4), // a length of two bytes
		&packet.Pingreq{},
		&packet.Unsubscribe{PacketID: 5, Filters: []string{"s/+", "none"}},
		&packet.Disconnect{},
	} {
		packets = append(packets, p.Append(nil, v))
	}
	return packets
}

// speak sends bytes in pieces of a size, ends its side, and returns what comes.
func speak(t *testing.T, addr string, b []byte, piece int) []byte {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(mqtttest.Timeout))
	for len(b) > 0 {
		n := min(piece, len(b))
		if _, err := nc.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	nc.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(nc)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestBytesOneByOne: however the packets are cut, the answers are the same.
func TestBytesOneByOne(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		n := start(t)
		all := bytes.Join(life(v), nil)
		want := speak(t, n.addr, all, len(all))
		if len(want) < 20 {
			t.Fatalf("%s: answers % x", v, want)
		}
		for _, piece := range []int{1, 2, 3, 7} {
			if got := speak(t, n.addr, all, piece); !bytes.Equal(got, want) {
				t.Errorf("%s in pieces of %d:\n% x, want\n% x", v, piece, got, want)
			}
		}
	}
}

// TestCutAtEveryByte: a client may be gone after any byte. What it sent whole has
// happened, of the rest nothing, and nothing of it stays (node.stop looks).
func TestCutAtEveryByte(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		n := start(t)
		packets := life(v)
		all := bytes.Join(packets, nil)
		for cut := range len(all) + 1 {
			whole, published := 0, 0
			for rest := cut; whole < len(packets) && rest >= len(packets[whole]); whole++ {
				rest -= len(packets[whole])
				if p := packets[whole]; packet.Type(p[0]>>4) == packet.TypePublish && p[0]&6 != 0 {
					published++
				}
			}
			messages, closes := len(n.cluster.Messages()), len(n.cluster.Closes())
			speak(t, n.addr, all[:cut], cut)
			n.awaitConnections(0)
			if got := len(n.cluster.Messages()) - messages; got != published {
				t.Errorf("%s, %d bytes: %d messages of QoS 1 and 2, want %d", v, cut, got, published)
			}
			ended := n.cluster.Closes()[closes:]
			if connected := whole > 0; len(ended) != map[bool]int{true: 1}[connected] {
				t.Errorf("%s, %d bytes: %d sessions", v, cut, len(ended))
			} else if connected && ended[0].DiscardWill != (whole == len(packets)) {
				t.Errorf("%s, %d bytes: discard will %t", v, cut, ended[0].DiscardWill)
			}
		}
	}
}
