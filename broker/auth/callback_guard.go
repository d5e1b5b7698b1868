package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/shoalmq/shoal/broker"
)

// breaker leaves a back end alone that keeps failing. Safe for concurrent use.
type breaker struct {
	now func() time.Time

	mu      sync.Mutex
	failed  int       // in a row
	until   time.Time // left alone
	probing bool
}

// enter tells whether to ask. Every true is followed by leave.
func (b *breaker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed < breakAfter {
		return true
	}
	if b.probing || b.now().Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

// leave tells how it went. A client that gave up proves nothing.
func (b *breaker) leave(ok, gaveUp bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch {
	case ok:
		b.failed = 0
	case !gaveUp:
		b.failed = min(b.failed+1, breakAfter)
		b.until = b.now().Add(breakFor)
	}
}

// answerCache remembers answers by what was asked. Of that it keeps a digest
// with a key of its own, so that passwords are not in memory longer than their
// CONNECT. Safe for concurrent use.
type answerCache struct {
	now    func() time.Time
	secret [sha256.Size]byte

	mu      sync.Mutex
	answers map[[sha256.Size]byte]cached
}

type cached struct {
	who   *broker.Identity
	err   error
	until time.Time
}

func newAnswerCache(now func() time.Time) *answerCache {
	c := &answerCache{now: now, answers: make(map[[sha256.Size]byte]cached)}
	rand.Read(c.secret[:])
	return c
}

func (c *answerCache) digest(asked []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, c.secret[:])
	h.Write(asked)
	h.Sum(sum[:0])
	return sum
}

func (c *answerCache) find(asked []byte) (*broker.Identity, error, bool) {
	sum := c.digest(asked)
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.answers[sum]
	if !ok || !c.now().Before(a.until) {
		return nil, nil, false
	}
	return a.who, a.err, true
}

// keep remembers an answer, no longer than the identity in it holds. When there
// are too many it starts anew.
func (c *answerCache) keep(asked []byte, who *broker.Identity, err error, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	until := c.now().Add(ttl)
	if who != nil && !who.Expires.IsZero() && who.Expires.Before(until) {
		until = who.Expires
	}
	sum := c.digest(asked)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) >= maxCachedAnswers {
		clear(c.answers)
	}
	c.answers[sum] = cached{who, err, until}
}
