package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalmq/shoal/broker/session"
	"github.com/shoalmq/shoal/cluster/raftnet"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// topicIn is a Topic Name whose register is in a shard.
func (c *testCluster) topicIn(shard uint32, prefix string) string { return c.clientIn(shard, prefix) }

// registers reads all retained messages that match, page by page.
func (n *testNode) registers(filter string) (map[string]string, error) {
	out := make(map[string]string)
	for at := (session.RetainedCursor{}); !at.Done; {
		type answer struct {
			page []*shoalpb.Message
			next session.RetainedCursor
			err  error
		}
		done := make(chan answer, 1)
		n.Retained(filter, at, func(page []*shoalpb.Message, next session.RetainedCursor, err error) {
			done <- answer{page, next, err}
		})
		a := <-done
		if a.err != nil {
			return nil, a.err
		}
		for _, m := range a.page {
			if _, twice := out[m.Topic]; twice {
				return nil, fmt.Errorf("%s came twice", m.Topic)
			}
			out[m.Topic] = string(m.Payload)
		}
		at = a.next
	}
	return out, nil
}

func retainedMessage(topic string, qos uint32, payload string) *shoalpb.Message {
	return &shoalpb.Message{Topic: topic, Qos: qos, Retain: true, Payload: []byte(payload), Publisher: "w"}
}

// retain publishes retained messages of QoS 1 and waits for their PUBACKs.
func (c *client) retain(payloads map[string]string) {
	c.t.Helper()
	done := make(chan error, len(payloads))
	for topic, payload := range payloads {
		c.link.Publish(retainedMessage(topic, 1, payload), func(err error) { done <- err })
	}
	for range payloads {
		if err := wait(c.t, "PUBACK", done); err != nil {
			c.t.Fatal(err)
		}
	}
}

// subscribeRetained subscribes with Retain Handling 0.
func (c *client) subscribeRetained(filter string, qos uint32) {
	c.t.Helper()
	c.subscribe(filter, qos)
}

// TestScenarioRecorded: a QoS 2 message with RETAIN, whose topic's shard has no
// leader, gets no PUBREC; when there is one it does, and a subscriber on any node
// gets the value (scenario 30). A notice that is lost is asked for.
func TestScenarioRecorded(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioRecorded)
}

func testScenarioRecorded(t *testing.T, size int) {
	for _, test := range []struct {
		name    string
		notices bool
	}{{"leaderless", true}, {"and the publisher's shard changes its leader", false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newSized(t, size, 2)
			c.lead(1, "n2")
			pub := c.at("n1").open(t, c.clientIn(1, "pub"), true, 3600)
			topic := c.topicIn(2, "state")
			c.net.filter(func(m raftnet.Message) (<-chan struct{}, bool) { return nil, m.Group == 2 })
			recorded := make(chan error, 1)
			pub.link.Received(7, false, retainedMessage(topic, 2, "v1"), func(err error) { recorded <- err })
			eventually(t, "recorded in the publisher's shard", func() error {
				if n := c.stats(1).OutboxEntries; n != 1 {
					return fmt.Errorf("%d entries in the outbox", n)
				}
				return nil
			})
			again := make(chan error, 1) // a repeat is no answer either
			pub.link.Publish(message("passing", 1, "x"), func(err error) { again <- err })
			select {
			case err := <-recorded:
				t.Fatalf("PUBREC before the message is in its register: %v", err)
			case <-again:
			}
			if !test.notices {
				c.lead(1, "n3") // what it tells the node's feed comes before the feed asks
			}
			c.net.filter(nil)
			if err := wait(t, "PUBREC", recorded); err != nil {
				t.Fatal(err)
			}
			for i, n := range c.up() {
				if got, err := n.registers("#"); err != nil || got[topic] != "v1" {
					t.Errorf("%s reads %v, %v", n.config.NodeID, got, err)
				}
				sub := n.open(t, fmt.Sprint("sub", i), true, 3600)
				sub.subscribeRetained(topic, uint32(i%3))
				sub.expect("v1")
			}
			released := make(chan error, 1)
			pub.link.Released(7, func(known bool, err error) {
				if !known {
					err = errors.New("unknown")
				}
				released <- err
			})
			if err := wait(t, "PUBCOMP", released); err != nil {
				t.Error(err)
			}
		})
	}
}

// gate stops pages of replays before they are proposed, from one on.
type gate struct {
	pages atomic.Int64
	stop  int64 // the first page that stops; 0 for none
	at    chan string
	open  chan struct{}
}

func (c *testCluster) gateAt(page int64) *gate {
	g := &gate{stop: page, at: make(chan string, 1), open: make(chan struct{})}
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.net.step = func(ctx context.Context, node, what string) {
		if what != "page" || g.stop == 0 || g.pages.Add(1) < g.stop {
			return
		}
		select {
		case g.at <- node:
		default:
		}
		select {
		case <-g.open:
		case <-ctx.Done():
		}
	}
	return g
}

// TestScenarioReplayKills: a replay of thousands of topics to a durable session
// goes on when the leader of its shard is killed in the middle, and the node of
// its connection later: each topic once, with consecutive numbers (scenario 31).
func TestScenarioReplayKills(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioReplayKills)
}

func testScenarioReplayKills(t *testing.T, size int) {
	topics := 10_000
	if size == 5 {
		topics = 4_000 // still more pages than are waited for
	}
	c := newSized(t, size, 2)
	c.lead(0, "n1")
	c.lead(1, "n3")
	c.lead(2, "n1")
	w := c.at("n1").open(t, "w", true, 0)
	values := make(map[string]string, topics)
	for i := range topics {
		values[fmt.Sprintf("plant/%d/%d", i%17, i)] = fmt.Sprintf("v%d", i)
	}
	w.retain(values)

	d := newDevice(c, c.clientIn(1, "d"))
	c.must(d.stay(c.on("n2")))
	g := c.gateAt(4)
	c.must(d.subscribe("plant/#", 2))
	leader := wait(t, "the fourth page", g.at) // n3, or who took over from it
	g = c.gateAt(4)                            // of the next leader: the ninth or so
	c.kill(leader)
	c.start(leader)
	if leader == c.on("n2") {
		c.must(d.stay(c.on("n1"), c.on("n3")))
	}
	wait(t, "pages of the next leader", g.at)
	c.gateAt(0)
	c.kill(c.on("n2"))
	close(g.open)
	c.must(d.stay(c.on("n1"), c.on("n3")))
	eventually(t, "all topics", func() error {
		got, faults := d.payloads()
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		if len(got) < topics {
			return fmt.Errorf("%d of %d", len(got), topics)
		}
		return nil
	})
	c.start(c.on("n2"))
	c.ready()
	got, faults := d.payloads()
	seen := make(map[string]bool)
	for _, payload := range got {
		if seen[payload] {
			t.Errorf("%s came twice", payload)
		}
		seen[payload] = true
	}
	if len(got) != topics || len(faults) > 0 {
		t.Errorf("%d messages of %d topics; %q", len(got), topics, faults)
	}
	if n := c.stats(1).Enqueued; n != uint64(topics) {
		t.Errorf("%d entries were made for %d topics", n, topics)
	}
}

// TestScenarioReplayLive: what is published retained between the reading of a
// page and its commit comes live, and nothing older after it; the others of the
// page come (scenario 32).
func TestScenarioReplayLive(t *testing.T) {
	t.Parallel()
	onSizes(t, testScenarioReplayLive)
}

func testScenarioReplayLive(t *testing.T, size int) {
	c := newSized(t, size, 2)
	w := c.at("n1").open(t, "w", true, 0)
	a, b := c.topicIn(1, "t/a"), c.topicIn(2, "t/b")
	w.retain(map[string]string{a: "a1", b: "b1", a + "/x": "x1", b + "/x": "y1"})
	sub := c.at("n2").open(t, "sub", true, 3600)
	g := c.gateAt(1)
	sub.subscribeRetained("t/#", 1)
	wait(t, "a page", g.at)
	w.retain(map[string]string{a: "a2"})
	w.retain(map[string]string{b: "b2"})
	w.retain(map[string]string{a + "/x": ""}) // cleared: the page still has it, or has not
	close(g.open)
	eventually(t, "deliveries", func() error {
		got := fmt.Sprint(sub.in.payloadsOf(a), sub.in.payloadsOf(b), sub.in.payloadsOf(b+"/x"))
		if want := "[a2] [b2] [y1]"; got != want {
			return fmt.Errorf("got %s, want %s", got, want)
		}
		return nil
	})
	eventually(t, "the replay ends", func() error {
		if c.stats(c.node("n1").shardOf("sub")).Replays > 0 {
			return errors.New("it goes on")
		}
		return nil
	})
	c.settled()
	if got := fmt.Sprint(sub.in.payloadsOf(a), sub.in.payloadsOf(b)); got != "[a2] [b2]" {
		t.Errorf("got %s", got)
	}
}

// writer writes ascending numbers into one register, over many connections; every
// fifth clears it. It is one client: what is not acknowledged is sent again, in
// order, by the next connection.
type writer struct {
	c     *testCluster
	id    string
	topic string
	begun atomic.Int64 // the number that is being written, or was
	acked atomic.Int64 // the highest acknowledged
}

// payloadOf is the message of number n, whose QoS is n mod 3.
func (w *writer) messageOf(n int64) *shoalpb.Message {
	payload := fmt.Sprint(n)
	if n%5 == 0 {
		payload = ""
	}
	return retainedMessage(w.topic, uint32(n%3), payload)
}

// over writes numbers over one connection until it ends or stop is closed.
func (w *writer) over(l session.Link, ended, stop <-chan struct{}) {
	ask := func(f func(done func(error))) bool {
		done := make(chan error, 1)
		f(func(err error) { done <- err })
		select {
		case err := <-done:
			return err == nil
		case <-ended:
			return false
		}
	}
	for {
		select {
		case <-stop:
			return
		case <-ended:
			return
		default:
		}
		n := w.acked.Load() + 1
		if n%3 == 0 { // QoS 0 is not acknowledged: with the next
			w.begun.Store(n)
			l.Retain(w.messageOf(n), func() {})
			n++
		}
		again := w.begun.Swap(n) == n
		switch m := w.messageOf(n); m.Qos {
		case 1:
			if !ask(func(done func(error)) { l.Publish(m, done) }) {
				return
			}
		case 2:
			if !ask(func(done func(error)) { l.Received(1, again, m, done) }) {
				return
			}
			w.acked.Store(n)
			if !ask(func(done func(error)) { l.Released(1, func(_ bool, err error) { done(err) }) }) {
				return
			}
		}
		w.acked.Store(n)
	}
}

// writerSink is a connection of a writer. When it is used no more it stays open
// until the next takes the session over.
type writerSink struct {
	once  sync.Once
	ended chan struct{}
	link  atomic.Pointer[session.Link]
}

func (s *writerSink) Deliver([]session.Delivery) {}
func (s *writerSink) Lost(error)                 { s.Superseded() }
func (s *writerSink) end()                       { s.once.Do(func() { close(s.ended) }) }

func (s *writerSink) Superseded() {
	s.end()
	if l := s.link.Load(); l != nil {
		go (*l).Close(session.CloseRequest{})
	}
}

// write writes until stop is closed, over connections to all nodes in turn, each
// of which lasts until move or its end.
func (w *writer) write(stop <-chan struct{}, move <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		n := w.c.node(w.c.names[i%len(w.c.names)])
		if n == nil {
			continue
		}
		sink := &writerSink{ended: make(chan struct{})}
		type answer struct {
			l   session.Link
			err error
		}
		done := make(chan answer, 1)
		n.Open(session.OpenRequest{Client: w.id, ExpirySeconds: 3600, Window: 32}, sink,
			func(l session.Link, _ session.Opened, err error) { done <- answer{l, err} })
		a := <-done
		if a.err != nil {
			pause(context.Background(), retryDelay)
			continue
		}
		sink.link.Store(&a.l)
		select {
		case <-sink.ended: // before it had its link
			a.l.Close(session.CloseRequest{})
			continue
		default:
		}
		a.l.Fetch()
		over := make(chan struct{})
		go func() {
			defer close(over)
			select {
			case <-move: // the next takes over
				sink.end()
			case <-sink.ended:
			case <-stop:
			}
		}()
		w.over(a.l, sink.ended, stop)
		if i%2 == 0 {
			a.l.Close(session.CloseRequest{})
		}
		sink.end()
		<-over
	}
}

// read reads the register on one node after the other and checks that it never
// goes back, and is never older than what was acknowledged before.
func (w *writer) read(stop <-chan struct{}, t *testing.T, reads *atomic.Int64) {
	last := int64(0)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		n := w.c.node(w.c.names[i%len(w.c.names)])
		if n == nil {
			continue
		}
		least := max(last, w.acked.Load())
		got, err := n.registers(w.topic)
		most := w.begun.Load()
		if err != nil {
			continue
		}
		reads.Add(1)
		text, has := got[w.topic]
		if !has { // cleared by the first possible multiple of 5, or never written
			if last = (least + 4) / 5 * 5; last > most {
				t.Errorf("nothing is retained; %d is acknowledged or was read, %d begun", least, most)
				return
			}
			continue
		}
		var value int64
		fmt.Sscan(text, &value)
		if value < least || value > most {
			t.Errorf("%d is retained; %d is acknowledged or was read, %d begun", value, least, most)
			return
		}
		last = value
	}
}

// TestRegisterNeverGoesBack: one writer with messages of all QoS, which moves from
// node to node by takeovers and kills; readers on all nodes.
func TestRegisterNeverGoesBack(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 2)
	w := &writer{c: c, id: c.clientIn(1, "w"), topic: c.topicIn(2, "register")}
	stop, move := make(chan struct{}), make(chan struct{})
	var tasks sync.WaitGroup
	var reads atomic.Int64
	tasks.Go(func() { w.write(stop, move) })
	for range 3 {
		tasks.Go(func() { w.read(stop, t, &reads) })
	}
	progress := func() {
		t.Helper()
		acked, read := w.acked.Load(), reads.Load()
		eventually(t, "progress", func() error {
			if w.acked.Load() < acked+30 || reads.Load() < read+30 {
				return fmt.Errorf("%d written, %d read; at %d", w.acked.Load()-acked, reads.Load()-read, w.acked.Load())
			}
			return nil
		})
	}
	for round := range 3 {
		for range 5 {
			progress()
			select {
			case move <- struct{}{}:
			case <-t.Context().Done():
			}
		}
		name := c.leader(uint32(round % 3))
		c.kill(name)
		progress()
		c.start(name)
		c.ready()
	}
	progress()
	close(stop)
	tasks.Wait()
	t.Logf("%d written, %d read", w.acked.Load(), reads.Load())
}

// TestRetainedBeforeTakeover: a retained message of QoS 0 that is on its way from
// a connection comes before all that the connection which takes over publishes.
func TestRetainedBeforeTakeover(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 3, 2)
	c.lead(0, "n2")
	c.lead(1, "n2")
	c.lead(2, "n3")
	id, topic := c.clientIn(1, "w"), c.topicIn(2, "t")
	first := c.node("n1").open(t, id, true, 3600)
	first.retain(map[string]string{topic: "v0"})
	c.net.hold("n1", "n3")
	first.link.Retain(retainedMessage(topic, 0, "v1"), func() {})
	first.link.Retain(retainedMessage(topic, 0, "v2"), func() {})
	source := first.n.proc.Load().sources[2]
	eventually(t, "under way", func() error {
		source.mu.Lock()
		defer source.mu.Unlock()
		if source.waiting > 0 {
			return errors.New("it waits")
		}
		return nil
	})
	second := c.node("n2").open(t, id, false, 3600)
	done := make(chan error, 1)
	second.link.Publish(retainedMessage(topic, 1, "v3"), func(err error) { done <- err })
	wait(t, "the first connection is told", first.superseded)
	c.node("n2").open(t, "other", true, 0).publish("t", 1, "x")
	c.net.heal()
	if err := wait(t, "PUBACK", done); err != nil {
		t.Fatal(err)
	}
	c.settled()
	if got, err := c.node("n2").registers(topic); err != nil || got[topic] != "v3" {
		t.Errorf("%v is retained, %v", got, err)
	}
}
