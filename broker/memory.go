package broker

import (
	"cmp"
	"runtime"
	gauges "runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// The levels of shortage of memory. Each does what those below it do.
const (
	// memoryEnough: nothing is held back.
	memoryEnough int32 = iota
	// memoryRefuse: CONNECT is refused with 0x89. Who is there is worth more
	// than who comes.
	memoryRefuse
	// memoryPause: clients that publish with QoS ≥ 1 are read in small portions,
	// so that their own queues grow and not ours. They are not left unread for
	// long: their acknowledgements are what frees memory.
	memoryPause
	// memoryDrop: a QoS 0 copy is dropped unless its client is up to date.
	memoryDrop
	// memoryClose: the clients that hold most are closed with 0x97, as many as
	// hold what is too much. So they are when a lower level lasts.
	memoryClose
)

var memoryNames = [...]string{"enough", "refuse_connects", "pause_publishers", "drop_qos0", "close_slowest"}

// memoryMarks are the parts of the limit at which the levels begin; each ends
// memoryBack below. The garbage collector needs what is above the last: near
// the limit it takes all processors.
var memoryMarks = [...]float64{0, .70, .78, .84, .90}

// memory watches how much of the process's memory is in use and says what is to
// be shed. Everything that reads level is an atomic look.
type memory struct {
	b     *Broker
	limit uint64 // 0: not watched
	used  func() (bytes, cycles uint64)
	level atomic.Int32
	last  atomic.Uint64 // bytes used at the last look

	mu     sync.Mutex
	paused []*conn // with pauseMemory

	// Of the watcher's goroutine:
	cycles    uint64    // of the garbage collector, at the last look
	collected time.Time // they last changed
	shed      time.Time // clients were last closed
	enough    time.Time // the last look at which there was enough
}

func (m *memory) short(level int32) bool { return m.level.Load() >= level }

// run watches until done.
func (m *memory) run(done <-chan struct{}) {
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case now := <-tick.C:
			m.look(now)
			if n%memoryPortion == 0 {
				m.readOn()
			}
		case <-done:
			return
		}
	}
}

// look measures and acts.
func (m *memory) look(now time.Time) {
	used, cycles := m.used()
	m.last.Store(used)
	level := m.at(used)
	if was := m.level.Swap(level); was != level {
		m.b.log.Warn("memory", "level", memoryNames[level], "was", memoryNames[was], "used", used, "limit", m.limit)
		if level < memoryPause {
			m.readOn()
		}
	}
	if cycles != m.cycles {
		m.cycles, m.collected = cycles, now
	}
	if level == memoryEnough {
		m.enough = now
		return
	}
	if now.Sub(m.collected) > memoryCollect { // what has been freed shows only then
		m.collected = now
		go runtime.GC()
	}
	mark := memoryMarks[level] - memoryBack
	lasts := now.Sub(m.enough) > memoryPatience
	if lasts {
		mark = memoryMarks[memoryRefuse] - memoryBack
	}
	if (level == memoryClose || lasts) && now.Sub(m.shed) >= memoryShed {
		m.shed = now
		m.closeSlowest(int(used) - int(mark*float64(m.limit)))
	}
}

// at is the level for what is used now.
func (m *memory) at(used uint64) int32 {
	level := m.level.Load()
	part := float64(used) / float64(m.limit)
	for level < memoryClose && part >= memoryMarks[level+1] {
		level++
	}
	for level > memoryEnough && part < memoryMarks[level]-memoryBack {
		level--
	}
	return level
}

// pause stops the reading of a publisher until the next portion. c.mu is held.
func (m *memory) pause(c *conn) {
	if c.paused&pauseMemory != 0 {
		return
	}
	c.paused |= pauseMemory
	m.b.metrics.memoryPaused.Add(1)
	m.mu.Lock()
	m.paused = append(m.paused, c)
	m.mu.Unlock()
}

// readOn ends all pauses; publishers that go on meet the next.
func (m *memory) readOn() {
	m.mu.Lock()
	list := m.paused
	m.paused = nil
	m.mu.Unlock()
	for _, c := range list {
		c.mu.Lock()
		c.seen.Store(time.Now().UnixNano()) // it could not be heard
		c.resume(pauseMemory)
		c.unlock()
	}
}

// closeSlowest closes those clients that hold most and together hold bytes.
func (m *memory) closeSlowest(bytes int) {
	type holder struct {
		c     *conn
		bytes int
	}
	var all []holder
	m.b.mu.Lock()
	conns := make([]*conn, 0, len(m.b.conns))
	for c := range m.b.conns {
		conns = append(conns, c)
	}
	m.b.mu.Unlock()
	for _, c := range conns {
		if n := c.holdings(); n >= memoryWorth {
			all = append(all, holder{c, n})
		}
	}
	slices.SortFunc(all, func(a, b holder) int { return cmp.Compare(b.bytes, a.bytes) })
	for _, h := range all {
		if bytes <= 0 {
			return
		}
		bytes -= h.bytes
		m.b.metrics.memoryClosed.Add(1)
		m.b.log.Warn("short of memory: closing a client", "client", h.c.client, "holds", h.bytes)
		h.c.goodbye(packet.CodeQuotaExceeded, "the server is short of memory and this client is slow")
	}
}

// holdings is about what a connection keeps in memory.
func (c *conn) holdings() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() != serving {
		return 0
	}
	n := c.pending
	if c.incoming != nil {
		n += c.incoming.bytes
	}
	if c.outgoing != nil && !c.durable {
		n += c.outgoing.session.QueuedBytes() // bodies may be others' too
	}
	return n
}

// memoryUsed is what the garbage collector found alive, and all that is not
// heap. What it could free at once does not count, so this does not rise and
// fall with its cycles.
func memoryUsed() func() (bytes, cycles uint64) {
	names := []string{
		"/gc/heap/live:bytes", "/gc/cycles/total:gc-cycles",
		"/memory/classes/total:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes",
		"/memory/classes/heap/released:bytes", "/memory/classes/heap/unused:bytes",
	}
	samples := make([]gauges.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	return func() (bytes, cycles uint64) {
		gauges.Read(samples)
		v := func(i int) uint64 {
			if samples[i].Value.Kind() != gauges.KindUint64 {
				return 0
			}
			return samples[i].Value.Uint64()
		}
		return v(0) + v(2) - v(3) - v(4) - v(5) - v(6), v(1)
	}
}

// newMemory watches nothing if there is no limit.
func newMemory(b *Broker) *memory {
	m := &memory{b: b, used: b.config.MemoryUsed, collected: time.Now(), enough: time.Now()}
	if m.used == nil {
		m.used = memoryUsed()
	}
	if l := b.config.MemoryLimit; l > 0 {
		m.limit = uint64(l)
	}
	return m
}
