package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// heldPipe keeps runs until the test answers them.
type heldPipe struct {
	mu      sync.Mutex
	firsts  []uint64
	replies chan outboxReply
}

func (p *heldPipe) Send(first uint64, _ []*shoalpb.Command) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.firsts = append(p.firsts, first)
	return nil
}

func (p *heldPipe) Recv() (outboxReply, error) {
	r, ok := <-p.replies
	if !ok {
		return r, errors.New("closed")
	}
	return r, nil
}

func (p *heldPipe) Close() {}

func (p *heldPipe) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.firsts)
}

// TestFirstRunOfAPipeGoesAlone: a recovered target adopts the first number that
// it takes, so the second run must not be under way before the first is taken.
func TestFirstRunOfAPipeGoesAlone(t *testing.T) {
	t.Parallel()
	c := newScenario(t, 1, 2)
	sub, pub := newDevice(c, c.clientIn(2, "sub")), newDevice(c, c.clientIn(1, "pub"))
	sub.subscribes("a", 1, "n1")
	var l *shardLead
	eventually(t, "shard 1 is led", func() error {
		if l = c.node("n1").leadOf(1); l == nil {
			return errors.New("not yet")
		}
		return nil
	})
	target := &shoalpb.Target{Group: 2}
	held := &outboxSender{l: l, target: target, wake: newSignal()} // in place of the lead's own
	l.mu.Lock()
	l.senders[keyOf(target)] = held
	l.mu.Unlock()
	c.must(pub.stay("n1"))
	p := &heldPipe{replies: make(chan outboxReply)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, payload := range []string{"one", "two"} { // acknowledged only once the target has them
		pub.publish("a", 2, payload)
		eventually(t, payload+" is in the outbox", func() (err error) {
			l.g.read(func(m machine) {
				if _, more, _ := m.(*shardMachine).Outbox(target, held.after, 1, 0); len(more) == 0 {
					err = errors.New("not yet")
				}
			})
			return err
		})
		if err := held.fill(ctx, p); err != nil || p.sent() != 1 {
			t.Errorf("%d runs under way, none taken: %v", p.sent(), err)
		}
	}
	held.taken = true
	if err := held.fill(ctx, p); err != nil || p.sent() != 2 {
		t.Errorf("%d runs sent after one was taken: %v", p.sent(), err)
	}
	l.tasks.run(held.run) // for what the end of the test waits for
}
