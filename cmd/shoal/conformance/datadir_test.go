package conformance

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/mqtttest"
	"github.com/shoalmq/shoal/broker/packet"
	"github.com/shoalmq/shoal/cluster"
	"github.com/shoalmq/shoal/storage"
)

// sample makes the data directory of a node that has been in use, once.
var sample = sync.OnceValues(func() (map[string][]byte, error) {
	dir := filepath.Join(scratch, "sample")
	n, err := startNode(cluster.Config{NodeID: "solo", DataDir: dir, BootstrapExpect: 1, Shards: 2})
	if err != nil {
		return nil, err
	}
	if err := n.awaitReady(); err != nil {
		return nil, err
	}
	if err := n.fill(100); err != nil {
		return nil, err
	}
	if err := n.close(); err != nil {
		return nil, err
	}
	return image(dir)
})

// fill leaves a durable session with messages. What a busy machine refuses, as
// while it elects a leader, is tried again.
func (n *node) fill(count int) error {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if err := n.tryFill(count); err == nil || time.Now().After(end) {
			return err
		}
	}
}

func (n *node) tryFill(count int) error {
	c, err := n.dial(overTCP, packet.V5)
	if err != nil {
		return err
	}
	defer c.Close()
	ack, err := c.Connect(packet.Connect{ClientID: "s", CleanStart: true, HasSessionExpiry: true, SessionExpiry: 3600, ReceiveMaximum: 1}, mqtttest.Timeout)
	if err != nil || ack.Code != packet.CodeSuccess {
		return cmp.Or(err, fmt.Errorf("CONNACK %v", ack))
	}
	c.Send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "a", QoS: 1}}})
	for i := range count {
		c.Send(publish("a", strings.Repeat(fmt.Sprint(i), 100), 1, uint16(i+1)))
	}
	for acked := 0; acked < count; {
		p, err := c.Receive(mqtttest.Timeout)
		if err != nil {
			return err
		}
		if a, ok := p.(*packet.Ack); ok && a.Type == packet.TypePuback {
			acked++
		}
	}
	return nil
}

// image is what the files of a directory hold.
func image(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	return files, err
}

// fingerprint is a directory in few words, without the lock's, which name the
// last process.
func fingerprint(t *testing.T, dir string, except ...string) string {
	t.Helper()
	files, err := image(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(except, "lock") {
		delete(files, name)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%s %d %x\n", name, len(files[name]), sha256.Sum256(files[name]))
	}
	return b.String()
}

// lay makes a copy of the sample.
func lay(t *testing.T) string {
	t.Helper()
	files, err := sample()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// change writes a file as edit makes it.
func change(t *testing.T, path string, edit func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, edit(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rewrite changes one value of the identity and makes its sum right.
func rewrite(t *testing.T, dir, key string, value any) {
	t.Helper()
	change(t, filepath.Join(dir, "identity"), func(b []byte) []byte {
		line, _, _ := bytes.Cut(b, []byte("\n"))
		var all map[string]any
		if err := json.Unmarshal(line, &all); err != nil {
			t.Fatal(err)
		}
		if _, known := all[key]; !known {
			t.Fatalf("no %s in %s", key, line)
		}
		all[key] = value
		line, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Appendf(line, "\ncrc32c %08x\n", crc32.Checksum(line, crc32.MakeTable(crc32.Castagnoli)))
	})
}

// flip changes one bit of what a file stores: the middle one of those that
// matter, for parts of the file are unused.
func flip(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(good, "\x00"))
	for i := range 200 {
		b := bytes.Clone(good)
		b[(used/2+i*1031)%used] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		found := false
		if err := storage.Verify(dir, func(string, string) { found = true }); err != nil {
			t.Fatal(err)
		}
		if found {
			return
		}
	}
	t.Fatalf("no bit of %s matters", name)
}
