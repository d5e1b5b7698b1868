package broker

import "time"

// What a client asks for and has to wait for — SUBSCRIBE, UNSUBSCRIBE, PUBREL —
// is bounded by weight: a client is not read while too much of it is
// unanswered. So it cannot fill this node's memory while a shard is away, and
// what it costs others is bounded. Publishes have their own bound (inbound.go).

// asking notes a request that the Cluster will answer, before it is made.
func (c *conn) asking(weight int) {
	c.mu.Lock()
	c.asked += weight
	if c.asked > maxAsked {
		c.paused |= pauseAsked
	}
	c.mu.Unlock()
}

// answered notes the answer to a request. mu is not held.
func (c *conn) answered(weight int) {
	c.mu.Lock()
	defer c.unlock()
	c.asked -= weight
	if c.paused&pauseAsked != 0 && c.asked <= maxAsked/2 {
		c.seen.Store(time.Now().UnixNano()) // it could not be heard
		c.resume(pauseAsked)
	}
}

// filtersWeight is about what a request for topic filters takes until it is
// answered.
func filtersWeight[F any](filters []F, name func(F) string) int {
	weight := askedBytes
	for _, f := range filters {
		weight += askedBytes + len(name(f))
	}
	return weight
}
