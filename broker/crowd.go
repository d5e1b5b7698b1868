package broker

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// crowd notices what comes too often: connections of one address, of one client,
// failed logins of one address. For each it counts events in a window, and bans
// for a time what has more than it may. It keeps crowdSize of each: beyond, the
// one that is asked for least recently makes room, half of them at a time.
// Safe for concurrent use.
type crowd struct {
	rule Ban

	mu       sync.Mutex
	now, old map[string]*comer // old is what was asked for before now filled
}

// Ban says what is too often. Zero Events is never.
type Ban struct {
	// More than Events within a Window ban for a Time.
	Events int
	Window time.Duration
	Time   time.Duration
}

// comer is one that is counted.
type comer struct {
	events float64 // decaying over the window
	at     time.Time
	banned time.Time // until
}

// newCrowd returns nil if nothing is too often.
func newCrowd(rule Ban) *crowd {
	if rule.Events <= 0 {
		return nil
	}
	or(&rule.Window, time.Minute)
	or(&rule.Time, 5*time.Minute)
	return &crowd{rule: rule, now: make(map[string]*comer)}
}

// banned tells whether name is.
func (w *crowd) banned(name string, now time.Time) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.find(name)
	return c != nil && now.Before(c.banned)
}

// count notes an event, and reports true if it is the one that bans.
func (w *crowd) count(name string, now time.Time) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.find(name)
	if c == nil {
		if len(w.now) >= crowdSize/2 {
			w.now, w.old = make(map[string]*comer), w.now
		}
		c = &comer{at: now}
		w.now[name] = c
	}
	// A leaky bucket: it empties by Events in a Window.
	leak := float64(w.rule.Events) * now.Sub(c.at).Seconds() / w.rule.Window.Seconds()
	c.events, c.at = max(c.events-leak, 0)+1, now
	if c.events <= float64(w.rule.Events) || now.Before(c.banned) {
		return false
	}
	c.events, c.banned = 0, now.Add(w.rule.Time)
	return true
}

// find returns who is known by that name, nil if nobody is.
func (w *crowd) find(name string) *comer {
	if c := w.now[name]; c != nil {
		return c
	}
	c := w.old[name]
	if c != nil {
		delete(w.old, name)
		w.now[name] = c
	}
	return c
}

// host is an address without its port, as text; IPv6 ones by /64, which is what
// one subscriber has.
func host(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if _, unix := a.(*net.UnixAddr); unix {
		return "" // all clients of a socket have that of the socket
	}
	if !ok {
		return a.String()
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		return ""
	}
	if ip = ip.Unmap(); ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Masked().String()
		}
	}
	return ip.String()
}
