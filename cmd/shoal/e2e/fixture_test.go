package e2e

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
)

// dataDirectory is a data directory of format 1, as a node left it that was
// killed: partly in checkpoints, partly in the log. SHOAL_FIXTURE=FILE has
// TestMakeDataDirectory make another one; a released format is never made anew.
const dataDirectory = "testdata/format1.tar.gz"

// fixtureNode plans the node that a data directory belongs to.
func fixtureNode(t *testing.T, dir string) (*cluster, *node) {
	c := newCluster(t, 2, dir)
	n := c.nodes[0]
	n.name, n.dir = "fixture", filepath.Join(dir, "fixture")
	n.flags = []string{"--shards=2"}
	c.nodes = c.nodes[:1]
	return c, n
}

// The clients of the data directory.
const (
	fixtureReader    = "reader"    // durable, with subscriptions and queued messages
	fixturePublisher = "publisher" // durable, with a QoS 2 exchange after PUBREC
	fixtureMortal    = "mortal"    // had a Will when the node was killed
)

// fixtureExchange is the Packet Identifier of the publisher's exchange.
const fixtureExchange = 4711

// fixtureMessages are queued for the reader, in order.
var fixtureMessages = []string{"one", "two", "three", "four", "five"}

// TestMakeDataDirectory makes a new data directory, for a new format.
func TestMakeDataDirectory(t *testing.T) {
	path := os.Getenv("SHOAL_FIXTURE")
	if path == "" {
		t.Skip("SHOAL_FIXTURE names the file to make")
	}
	c, n := fixtureNode(t, t.TempDir())
	c.start()
	c.awaitReady()
	at := c.addrs()
	durable := packet.Connect{HasSessionExpiry: true, SessionExpiry: 0xFFFFFFFF}
	reader, publisher, mortal := durable, durable, durable
	reader.ClientID, publisher.ClientID, mortal.ClientID = fixtureReader, fixturePublisher, fixtureMortal
	mortal.Will = &packet.Will{Topic: "fixture/will", Payload: []byte("gone"), QoS: 1, Retain: true}

	r := newPerson(at, 0, reader)
	must(t, r.online())
	must(t, r.subscribe(nil, packet.Subscription{Filter: "fixture/queue/+", QoS: 2}))
	r.offline()
	p := newPerson(at, 0, publisher)
	must(t, p.online())
	publish := func(i int, m packet.Publish) {
		must(t, p.publish(m, nil))
		if i == 2 { // what follows is in the log alone
			awaitCheckpoint(t, n)
		}
	}
	must(t, p.publish(packet.Publish{Topic: []byte("fixture/retained"), Payload: []byte("kept"), QoS: 1, Retain: true}, nil))
	for i, payload := range fixtureMessages {
		publish(i, packet.Publish{Topic: []byte("fixture/queue/a"), Payload: []byte(payload), QoS: 1})
	}
	p.conn.AutoAck = false
	must(t, p.conn.Send(&packet.Publish{Topic: []byte("fixture/queue/b"), Payload: []byte("twice"), QoS: 2, PacketID: fixtureExchange}))
	if code, err := p.answer(fixtureExchange, nil); err != nil || code.Failed() {
		t.Fatal(code, err)
	}
	must(t, newPerson(at, 0, mortal).online())
	n.kill()
	must(t, pack(path, n.dir))
}

// awaitCheckpoint waits until all state files have been written.
func awaitCheckpoint(t *testing.T, n *node) {
	t.Helper()
	begin := time.Now()
	eventually(t, "checkpoints", func() error {
		files, err := filepath.Glob(filepath.Join(n.dir, "*"+".db"))
		written := 0
		for _, f := range files {
			if s, err := os.Stat(f); err == nil && filepath.Base(f) != "log.db" && s.ModTime().After(begin) {
				written++
			}
		}
		if err == nil && written == 0 {
			err = errors.New("none yet")
		}
		return err
	})
}

// TestOldDataDirectory: this build opens a data directory of format 1 and finds
// everything that was acknowledged.
func TestOldDataDirectory(t *testing.T) {
	dir := t.TempDir()
	c, n := fixtureNode(t, dir)
	must(t, unpack(dataDirectory, n.dir))
	c.start()
	c.awaitReady()
	at := c.addrs()

	// The QoS 2 exchange goes on where it was.
	p := newPerson(at, 0, packet.Connect{ClientID: fixturePublisher, HasSessionExpiry: true, SessionExpiry: 60})
	must(t, p.online())
	if !p.present {
		t.Error("the publisher's session is gone")
	}
	must(t, p.conn.Send(&packet.Ack{Type: packet.TypePubrel, PacketID: fixtureExchange}))
	x, err := p.conn.Receive(patience)
	if ack, ok := x.(*packet.Ack); !ok || ack.Type != packet.TypePubcomp || ack.Code != packet.CodeSuccess {
		t.Errorf("PUBREL of the exchange got %s, %v", mqtttest.Describe(x), err)
	}
	p.leave()

	// The queue is there, in order.
	r := newPerson(at, 0, packet.Connect{ClientID: fixtureReader, HasSessionExpiry: true, SessionExpiry: 60})
	must(t, r.online())
	if !r.present {
		t.Error("the reader's session is gone")
	}
	for _, want := range append(fixtureMessages[:len(fixtureMessages):len(fixtureMessages)], "twice") {
		if m := nextPublish(t, r); string(m.Payload) != want {
			t.Errorf("got %q, want %q", m.Payload, want)
		}
	}
	r.leave()

	// The retained message is in its register, and the Will is, of the client
	// that did not come back.
	after := newPerson(at, 0, packet.Connect{ClientID: "after", CleanStart: true})
	must(t, after.online())
	got := map[string]string{}
	take := func(m *packet.Publish) { got[string(m.Topic)] = string(m.Payload) }
	must(t, after.subscribe(take, packet.Subscription{Filter: "fixture/+", QoS: 1}))
	for got["fixture/retained"] != "kept" || got["fixture/will"] != "gone" {
		take(nextPublish(t, after))
	}
	after.leave()
}

func nextPublish(t *testing.T, p *person) *packet.Publish {
	t.Helper()
	for {
		x, err := p.conn.Receive(patience)
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := x.(*packet.Publish); ok {
			return m
		}
	}
}

// pack writes the files of a directory into an archive.
func pack(path, dir string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, _ := gzip.NewWriterLevel(f, gzip.BestCompression)
	w := tar.NewWriter(z)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		return err
	}
	return errors.Join(w.Close(), z.Close())
}

// unpack is the reverse of pack. Files of zeros stay sparse.
func unpack(path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(to, 0o700)
		} else {
			err = unpackFile(to, r)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func unpackFile(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
