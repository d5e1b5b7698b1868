package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/shoalmq/shoal/broker/packet"
)

// stream is what order is promised for: the messages of one publisher to one
// Topic Name at one QoS. They are numbered from 0.
type stream struct {
	publisher, topic string
	qos              packet.QoS
}

// message is one of a stream, by its place in history.streams.
type message struct {
	stream int32
	number int32
}

// publication is what happened to a message at its publisher, as instants of
// the history; 0 is never.
type publication struct {
	sent int64 // given to a connection for the first time
	// acked: the broker owns it, by PUBACK or PUBREC with success.
	acked int64
}

// delivery is a message handed to a subscriber's application: at QoS 2 not what
// its own session recognized as a repetition.
type delivery struct {
	message
	qos packet.QoS
}

// subscriber is one subscription of a durable session.
type subscriber struct {
	name, filter string
	qos          packet.QoS
	// since is the instant of SUBACK; what is sent later must arrive.
	since      int64
	deliveries []delivery
	reached    map[int32]int // of each stream the highest number delivered, + 1
}

// history is what all clients of a test saw. It is safe for use by many
// goroutines; its plain fields are for when they have ended.
type history struct {
	mu          sync.Mutex
	instant     int64
	streams     []stream
	byPublisher map[string]int32 // publisher and QoS to stream
	published   [][]publication  // by stream and number
	subscribers []*subscriber
	// violations are what a session saw that the standard or a promise forbids
	// and the checker cannot see: a lost session, an unknown identifier.
	violations []string
	notes      map[string]int // what is allowed, and told in the log
}

func newHistory() *history {
	return &history{byPublisher: map[string]int32{}, notes: map[string]int{}}
}

// open adds a stream.
func (h *history) open(s stream) int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := int32(len(h.streams))
	h.streams = append(h.streams, s)
	h.published = append(h.published, nil)
	h.byPublisher[publisherKey(s.publisher, s.qos)] = id
	return id
}

func publisherKey(publisher string, qos packet.QoS) string {
	return publisher + " " + strconv.Itoa(int(qos))
}

// payload names a message to whoever receives it: publisher, QoS, number.
func (h *history) payload(m message) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[m.stream]
	return fmt.Appendf(nil, "%s %d", publisherKey(s.publisher, s.qos), m.number)
}

// next takes the next number of a stream.
func (h *history) next(stream int32) message {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published[stream] = append(h.published[stream], publication{})
	return message{stream, int32(len(h.published[stream]) - 1)}
}

func (h *history) sent(m message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := &h.published[m.stream][m.number]; p.sent == 0 {
		p.sent = h.now()
	}
}

func (h *history) acked(m message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published[m.stream][m.number].acked = h.now()
}

// now is called with mu held.
func (h *history) now() int64 {
	h.instant++
	return h.instant
}

// subscribe adds a subscriber, of which nothing is expected before its SUBACK.
func (h *history) subscribe(name, filter string, qos packet.QoS) *subscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &subscriber{name: name, filter: filter, qos: qos, reached: map[int32]int{}}
	h.subscribers = append(h.subscribers, s)
	return s
}

func (h *history) suback(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.since = h.now()
}

// delivered records a PUBLISH that reached s.
func (h *history) delivered(s *subscriber, p *packet.Publish) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.parse(string(p.Payload))
	if err == nil && h.streams[m.stream].topic != string(p.Topic) {
		err = fmt.Errorf("came with topic %q", p.Topic)
	}
	if err != nil {
		h.violations = append(h.violations, fmt.Sprintf("%s got %q: %v", s.name, p.Payload, err))
		return
	}
	s.deliveries = append(s.deliveries, delivery{m, p.QoS})
	s.reached[m.stream] = max(s.reached[m.stream], int(m.number)+1)
}

// lag is how many messages the slowest subscriber is behind, if all subscribe
// to everything.
func (h *history) lag() (most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.subscribers {
		behind := 0
		for id, stream := range h.published {
			behind += len(stream) - s.reached[int32(id)]
		}
		most = max(most, behind)
	}
	return most
}

// parse is called with mu held.
func (h *history) parse(payload string) (message, error) {
	i := strings.LastIndexByte(payload, ' ')
	if i < 0 {
		return message{}, fmt.Errorf("not one of this test's messages")
	}
	id, ok := h.byPublisher[payload[:i]]
	n, err := strconv.Atoi(payload[i+1:])
	if !ok || err != nil || n < 0 || n >= len(h.published[id]) {
		return message{}, fmt.Errorf("nobody published it")
	}
	return message{id, int32(n)}, nil
}

func (h *history) violate(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.violations = append(h.violations, fmt.Sprintf(format, args...))
}

// note counts something that is allowed.
func (h *history) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes[what]++
}

// noted lists the notes in order.
func (h *history) noted() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for what, n := range h.notes {
		all = append(all, fmt.Sprintf("%s: %d", what, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (h *history) stream(id int32) stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[id]
}

// count returns how many deliveries s has got.
func (h *history) count(s *subscriber) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(s.deliveries)
}
