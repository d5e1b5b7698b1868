package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// What a shard's leader does about time. Every entry carries the clock, so
// there is nothing to do but to propose one when nothing else does and a
// deadline is there, and to note from time to time which wall time it is: for a
// leader to come that has no other way to know for how long all were down.

// boot is the clock that shards' time is measured by.
func (c *Config) boot() func() time.Duration {
	if c.Clocks != nil {
		return c.Clocks.Boot
	}
	return bootTime
}

// wall is the wall clock in milliseconds since 1970, 0 before that.
func (c *Config) wall() uint64 {
	now := time.Now()
	if c.Clocks != nil {
		now = c.Clocks.Wall()
	}
	return uint64(max(now.UnixMilli(), 0))
}

// beginClock makes the estimate of this replica the shard's clock. All entries
// of former leaders have been applied.
func (l *shardLead) beginClock() {
	l.g.read(func(m machine) { l.g.clock.raise(m.(*shardMachine).Clock()) })
}

// runClock proposes Ticks.
func (l *shardLead) runClock(ctx context.Context) {
	t := timekeeper{l: l, retry: anchorRetry}
	for ctx.Err() == nil {
		wait := t.anchor(ctx)
		if at, ok := l.deadline(); ok {
			left := time.Duration(at-min(at, l.g.clock.now())) * time.Millisecond
			if left <= 0 {
				if l.commit(ctx, &shoalpb.Proposal{Tick: &shoalpb.Tick{}}) != nil {
					pause(ctx, retryDelay)
				}
				continue
			}
			wait = min(wait, left)
		}
		if c := l.n.config.Clocks; c != nil {
			wait = min(wait, c.Look)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.deadlineMoved:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// deadline is when, by the shard's clock, time alone changes something.
func (l *shardLead) deadline() (at uint64, ok bool) {
	l.g.read(func(m machine) { at, ok = m.(*shardMachine).NextDeadline() })
	return at, ok
}

// timekeeper notes the wall time at which the clock stands.
type timekeeper struct {
	l     *shardLead
	next  time.Duration // by bootTime
	retry time.Duration
}

// anchor notes the wall time if that is due, and returns after how long it is
// due again.
func (t *timekeeper) anchor(ctx context.Context) time.Duration {
	if now := bootTime(); now < t.next {
		return t.next - now
	}
	wait := anchorInterval
	if !t.note(ctx) {
		wait, t.retry = t.retry, min(2*t.retry, anchorInterval)
	}
	t.next = bootTime() + wait
	return wait
}

// note proposes an anchor, if there is none or the time matters to the shard,
// and if most replicas take it for the same. The first one of a lead that does not know how
// much time has passed moves the clock to where the wall time says: by the
// anchor of before, and forward only.
func (t *timekeeper) note(ctx context.Context) (noted bool) {
	l := t.l
	var timed bool
	var wallMs, clockMs uint64
	l.g.read(func(m machine) {
		s := m.(*shardMachine)
		timed = s.Timed()
		wallMs, clockMs = s.Anchor()
	})
	if !timed && wallMs != 0 && l.g.clock.isLive() {
		return true
	}
	if !l.wallAgreed(ctx) {
		if ctx.Err() == nil && t.retry == anchorRetry {
			l.g.log.Warn("most replicas do not take this node's wall time for theirs; it is not noted", "live", l.g.clock.isLive())
		}
		return false
	}
	now := l.n.config.wall()
	if !l.g.clock.isLive() {
		if wallMs != 0 && now > wallMs {
			l.g.clock.raise(clockMs + now - wallMs)
		}
		l.g.clock.setLive()
	}
	return l.commit(ctx, &shoalpb.Proposal{Tick: &shoalpb.Tick{WallMs: now}}) == nil
}

// wallAgreed tells whether this node's wall clock is that of a majority of the
// group's voters, itself among them.
func (l *shardLead) wallAgreed(parent context.Context) bool {
	f := l.g.raftNow.Load().GetConfiguration()
	if f.Error() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(parent, wallTimeout)
	defer cancel()
	voters, asked := 0, 0
	agrees := make(chan bool)
	agreed := 0
	for _, s := range f.Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == l.g.self {
			agreed++
			continue
		}
		asked++
		go func() { agrees <- l.n.wallAgrees(ctx, nodeOf(string(s.ID))) }()
	}
	for range asked {
		if <-agrees {
			agreed++
		}
	}
	return agreed > voters/2
}

// wallAgrees asks another node what time it is.
func (n *Node) wallAgrees(ctx context.Context, node string) bool {
	peer, err := n.peer(node)
	if err != nil {
		return false
	}
	before := n.config.wall()
	r, err := peer.Hello(ctx, &shoalpb.HelloRequest{ClusterId: n.clusterID()})
	if err != nil || r.WallMs == 0 {
		return false
	}
	const tolerance = uint64(wallTolerance / time.Millisecond)
	return r.WallMs+tolerance >= before && r.WallMs <= n.config.wall()+tolerance
}
