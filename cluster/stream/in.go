package stream

import (
	"slices"
	"strings"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// In is what a group knows of all streams that it consumes. The package comment
// tells the rules. It is not safe for concurrent use.
type In struct {
	group uint32
	life  uint32
	fence uint64
	nodes map[string]*inNode
	// shards are the streams of other groups' outboxes. They never end.
	shards map[uint32]*inStream
}

// inNode is one node: which of its boots are fenced, and the streams of those
// that are not.
type inNode struct {
	minBoot uint64
	streams []*inStream // ascending by boot
}

// inStream is one stream: of boot, or of another group's outbox in life.
type inStream struct {
	boot    uint64
	life    uint32
	last    uint64
	answers []*shoalpb.Answer // ascending by N, all more than "done"
	adopt   bool              // see Adopt
}

// NewIn returns the state of a group, in its given life, that has consumed
// nothing.
func NewIn(group uint32, life uint32) *In {
	return &In{group: group, life: life, nodes: map[string]*inNode{}, shards: map[uint32]*inStream{}}
}

// Apply takes b or refuses it. Of a batch that is taken it calls f for each
// command not consumed before, in order. f returns nil for "done", else the
// answer, whose N is filled in here and which must not change any more: it is
// kept, and given again to repeats, until b.Answered passes it.
//
// The checks are made in this order: target and lives, fenced boot, fence
// number, gap. The result is never nil; its Answers are shared and read-only.
func (in *In) Apply(b *shoalpb.Batch, f func(n uint64, c *shoalpb.Command) *shoalpb.Answer) *shoalpb.BatchAnswer {
	s, refusal := in.check(b)
	reply := &shoalpb.BatchAnswer{Refusal: refusal, Fence: in.fence}
	if s == nil {
		s = &inStream{} // nothing consumed; kept only once something is
	}
	if refusal == shoalpb.Refusal_REFUSAL_NONE {
		switch {
		case s.adopt && len(b.Commands) > 0:
			*s = inStream{life: b.SourceLife, last: b.First - 1}
		case s.last == 0 && len(b.Commands) > 0:
			s = in.open(b)
		}
		s.forget(b.Answered)
		reply.Answers = s.known(b)
		for i := s.last + 1 - b.First; i < uint64(len(b.Commands)); i++ {
			n := s.last + 1
			if a := f(n, b.Commands[i]); a != nil {
				a.N = n
				s.answers = append(s.answers, a)
				reply.Answers = append(reply.Answers, a)
			}
			s.last = n
		}
	}
	reply.Last = s.last
	return reply
}

// check finds the stream of b, nil if nothing of it was consumed, and says
// whether b can be taken.
func (in *In) check(b *shoalpb.Batch) (*inStream, shoalpb.Refusal) {
	if b.Target != in.group || b.TargetLife != in.life || (b.Node == "") == (b.Group == 0) {
		return nil, shoalpb.Refusal_REFUSAL_LIFE
	}
	var s *inStream
	if b.Node == "" {
		s = in.shards[b.Group]
		switch {
		case b.SourceLife == 0, s != nil && b.SourceLife < s.life:
			return nil, shoalpb.Refusal_REFUSAL_LIFE
		case s != nil && b.SourceLife > s.life:
			s = nil // recovered: its outbox counts from 1 again
		}
	} else {
		if b.SourceLife != 0 {
			return nil, shoalpb.Refusal_REFUSAL_LIFE
		}
		if b.Boot < in.MinBoot(b.Node) {
			return nil, shoalpb.Refusal_REFUSAL_FENCED
		}
		s = in.nodes[b.Node].stream(b.Boot)
	}
	if b.Fence > in.fence {
		return s, shoalpb.Refusal_REFUSAL_FENCE_AHEAD
	}
	var last uint64
	if s != nil {
		last = s.last
	}
	if b.First == 0 || b.First > last+1 && !(s != nil && s.adopt) {
		return s, shoalpb.Refusal_REFUSAL_GAP
	}
	return s, shoalpb.Refusal_REFUSAL_NONE
}

// open returns a new stream for the source of b.
func (in *In) open(b *shoalpb.Batch) *inStream {
	s := &inStream{boot: b.Boot, life: b.SourceLife}
	if b.Node == "" {
		s.boot = 0
		in.shards[b.Group] = s
		return s
	}
	n := in.node(b.Node)
	i, _ := slices.BinarySearchFunc(n.streams, b.Boot, byBoot)
	n.streams = slices.Insert(n.streams, i, s)
	return s
}

// node returns the record of a node, a new one if it is unknown. The name is
// copied, as it may alias a decoded log entry.
func (in *In) node(name string) *inNode {
	n := in.nodes[name]
	if n == nil {
		n = &inNode{}
		in.nodes[strings.Clone(name)] = n
	}
	return n
}

func byBoot(s *inStream, boot uint64) int {
	switch {
	case s.boot < boot:
		return -1
	case s.boot > boot:
		return 1
	}
	return 0
}

// stream returns the stream of boot, nil if there is none.
func (n *inNode) stream(boot uint64) *inStream {
	if n == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(n.streams, boot, byBoot)
	if !found {
		return nil
	}
	return n.streams[i]
}

// forget drops the answers that the source has.
func (s *inStream) forget(answered uint64) {
	i := 0
	for i < len(s.answers) && s.answers[i].N <= answered {
		i++
	}
	s.answers = slices.Delete(s.answers, 0, i)
}

// known returns the kept answers of those numbers of b that are consumed.
func (s *inStream) known(b *shoalpb.Batch) []*shoalpb.Answer {
	var known []*shoalpb.Answer
	for _, a := range s.answers {
		if a.N >= b.First && a.N-b.First < uint64(len(b.Commands)) {
			known = append(known, a)
		}
	}
	return known
}

// Last returns the highest number consumed of the stream of (node, boot), or of
// group's outbox if node is empty; 0 if it is to be adopted: its old numbers say
// nothing of the new ones.
func (in *In) Last(node string, boot uint64, group uint32) uint64 {
	s := in.shards[group]
	if node != "" {
		s = in.nodes[node].stream(boot)
	}
	if s == nil || s.adopt {
		return 0
	}
	return s.last
}
