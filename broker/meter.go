package broker

import (
	"math"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// meter holds what passes to a rate of pieces and one of bytes: token buckets
// that hold a second's worth. What passes may leave them in debt, and the wait
// that follows pays it.
type meter struct {
	pieces, bytes bucket
	// mu is for a meter that several connections share; one's own is its reader's.
	shared bool
	mu     sync.Mutex
	at     time.Time
}

// bucket is one of a meter's.
type bucket struct {
	rate   float64 // per second, 0 for no bound
	tokens float64
}

// newMeter returns nil if there is no bound.
func newMeter(pieces, bytes float64, shared bool) *meter {
	if pieces == 0 && bytes == 0 {
		return nil
	}
	return &meter{pieces: bucket{pieces, pieces}, bytes: bucket{bytes, bytes}, shared: shared, at: time.Now()}
}

// pass takes one piece of some bytes, and returns how long to wait before the
// next.
func (m *meter) pass(now time.Time, bytes int) time.Duration {
	if m.shared {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	passed := max(now.Sub(m.at).Seconds(), 0)
	m.at = now
	return max(m.pieces.take(1, passed), m.bytes.take(float64(bytes), passed))
}

func (b *bucket) take(n, passed float64) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.tokens = min(b.tokens+passed*b.rate, max(b.rate, 1)) - n
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(min(-b.tokens/b.rate*float64(time.Second), math.MaxInt64/2))
}

// pacing holds a connection to its rates. It belongs to the reader, but for
// timer, which conn.mu guards.
type pacing struct {
	publishes, requests *meter // nil for no bound
	timer               *time.Timer
}

// meterPublish meters a PUBLISH before anything comes of it. It returns an error if
// the client is to go for it.
func (c *conn) meterPublish(bytes int) error {
	if c.pacing == nil && len(c.bounds.meters) == 0 {
		return nil
	}
	now := time.Now()
	var wait time.Duration
	if c.pacing != nil && c.pacing.publishes != nil {
		wait = c.pacing.publishes.pass(now, bytes)
	}
	for _, m := range c.bounds.meters {
		wait = max(wait, m.pass(now, bytes))
	}
	return c.slowDown(wait, limitPublishRate, packet.TypePublish)
}

// meterRequest meters a packet that asks for something.
func (c *conn) meterRequest(t packet.Type) error {
	if c.pacing == nil || c.pacing.requests == nil {
		return nil
	}
	return c.slowDown(c.pacing.requests.pass(time.Now(), 0), limitRequestRate, t)
}

// slowDown has the client not read for a while, or ends its connection.
func (c *conn) slowDown(wait time.Duration, hit limit, t packet.Type) error {
	if wait <= 0 {
		return nil
	}
	c.broker.metrics.limits[hit].Add(1)
	if c.bounds.Disconnect {
		return &packet.Error{Code: packet.CodeMessageRateTooHigh, Packet: t, Reason: limitNames[hit] + " exceeded"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() != serving || c.paused&pauseRate != 0 {
		return nil
	}
	if c.pacing == nil {
		c.pacing = &pacing{}
	}
	c.paused |= pauseRate
	c.holds++
	c.pacing.timer = time.AfterFunc(wait, c.readAgain)
	return nil
}

// readAgain ends the pause of slowDown.
func (c *conn) readAgain() {
	c.mu.Lock()
	defer c.unlock()
	c.holds--
	c.seen.Store(time.Now().UnixNano()) // it could not be heard
	c.resume(pauseRate)
}

// stopPacing ends it when the connection does. mu is held.
func (c *conn) stopPacing() {
	if c.pacing != nil && c.pacing.timer != nil && c.pacing.timer.Stop() {
		c.holds--
	}
}
