package raftnet

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func addrs(ms []*member) (all []raft.ServerAddress) {
	for _, m := range ms {
		all = append(all, raft.ServerAddress(m.self))
	}
	return all
}

func (m *member) confirm(ctx context.Context, ms []*member) error {
	return m.mux.Group(1).Confirm(ctx, m.raft.CurrentTerm(), addrs(ms), raft.ServerAddress(m.self), func() { m.raft.VerifyLeader() })
}

func TestConfirm(t *testing.T) {
	ms, _ := startCluster(t, 3, nil, clusterOptions{})
	lead := leader(t, ms)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := lead.confirm(ctx, ms); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestOldAnswerDoesNotConfirm is the heart of a frozen leader: answers to
// heartbeats and entries that were sent before the question arrive after it,
// and nothing newer does. raft.VerifyLeader is satisfied by them; Confirm must
// not be.
func TestOldAnswerDoesNotConfirm(t *testing.T) {
	l := &links{}
	ms, _ := startCluster(t, 3, l, clusterOptions{})
	lead := leader(t, ms)
	apply(t, lead, "one")

	// Hold one heartbeat answer from each follower. From then on nothing more
	// leaves the leader, nor arrives there.
	release, never, held := make(chan struct{}), make(chan struct{}), make(chan string, 16)
	defer close(never) // so that raft can shut down at once
	var mu sync.Mutex
	holding := make(map[string]bool)
	l.setHold(func(m Message) <-chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case m.Answer && m.To == lead.self && m.Kind == KindHeartbeat && !holding[m.From]:
			holding[m.From] = true
			held <- m.From
			return release
		case !m.Answer && m.From == lead.self && m.Kind == KindHeartbeat && !holding[m.To]:
			return nil
		case m.From == lead.self || m.To == lead.self:
			return never
		}
		return nil
	})
	<-held
	<-held
	term := lead.raft.CurrentTerm()
	ctx, cancel := context.WithCancel(context.Background())
	confirm := make(chan error, 1)
	verify := lead.raft.VerifyLeader()
	asked := Now()
	nudged := make(chan struct{})
	go func() {
		confirm <- lead.mux.Group(1).Confirm(ctx, term, addrs(ms), raft.ServerAddress(lead.self), func() { close(nudged) })
	}()
	<-nudged // the question has been asked
	close(release)
	if err := verify.Error(); err != nil {
		t.Logf("VerifyLeader: %v (the leader stepped down before the answers came)", err)
	}
	rest, _ := others(ms, lead)
	leader(t, rest) // by then another leader may have committed
	cancel()
	if err := <-confirm; !errors.Is(err, context.Canceled) {
		t.Fatalf("Confirm = %v, want it to wait until cancelled", err)
	}
	if got := lead.mux.Group(1).Confirmed(term, addrs(ms), raft.ServerAddress(lead.self)); got >= asked {
		t.Fatalf("Confirmed = %v, at or after the question at %v", got, asked)
	}
}

func TestConfirmedCounts(t *testing.T) {
	var c confirmations
	five := []raft.ServerAddress{"a/1", "b/1", "c/1", "d/1", "e/1"}
	c.record("b/1", 7, 7, 100)
	if got := c.confirmed(7, five, "a/1"); got != 0 {
		t.Errorf("two of five: %v", got)
	}
	c.record("c/1", 7, 7, 200)
	if got := c.confirmed(7, five, "a/1"); got != 100 {
		t.Errorf("self, 200, 100: %v", got)
	}
	c.record("d/1", 7, 8, 300) // a later term does not confirm
	c.record("b/1", 7, 7, 50)  // nor does an older answer take anything back
	if got := c.confirmed(7, five, "a/1"); got != 100 {
		t.Errorf("after useless answers: %v", got)
	}
	if got := c.confirmed(7, five, "x/1"); got != 0 {
		t.Errorf("not a voter itself: %v", got)
	}
	if got := c.confirmed(8, five, "a/1"); got != 0 {
		t.Errorf("another term: %v", got)
	}
	c.record("b/1", 9, 9, 400)
	c.record("b/1", 7, 7, 500)
	if got := c.confirmed(7, five, "a/1"); got != 0 {
		t.Errorf("a peer asked in a later term still counts: %v", got)
	}
	if got := c.confirmed(7, []raft.ServerAddress{"b/2"}, "a/1"); got != 0 {
		t.Errorf("another disk counts: %v", got)
	}
	if got := c.confirmed(7, nil, "a/1"); got != 0 {
		t.Errorf("no voters: %v", got)
	}
	if got := c.confirmed(7, []raft.ServerAddress{"a/1"}, "a/1"); got == 0 {
		t.Error("a single voter is not confirmed")
	}
}

func TestConfirmEnds(t *testing.T) {
	b := &book{addrs: make(map[string]string)}
	m := startMember(t, b, nil, "a", "d", clusterOptions{})
	tr := m.mux.Group(1)
	voters := []raft.ServerAddress{"a/d", "b/d", "c/d"}
	done := make(chan error)
	go func() { done <- tr.Confirm(context.Background(), 3, voters, "a/d", func() {}) }()
	tr.answers.record("b/d", 3, 4, 1)
	if err := <-done; !errors.Is(err, ErrLaterTerm) {
		t.Errorf("after an answer of a later term: %v", err)
	}
	go func() { done <- tr.Confirm(context.Background(), 4, voters, "a/d", func() {}) }()
	tr.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
