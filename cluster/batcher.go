package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoalmq/shoal/cluster/stream"
)

// entryFormat is the format of log entries that every build reads.
const entryFormat = stream.FirstFormat

// Field numbers of Entry and Proposal, for entries that are put together from
// encoded parts: the bytes a peer sends are the bytes proposed.
const (
	fieldEntryFormat    = 1
	fieldEntryClock     = 2
	fieldEntryProposals = 3
	fieldProposalBatch  = 1
)

var errNotLeader = errors.New("not the group's leader")

// proposal is one thing to commit, encoded.
type proposal struct {
	// data is an encoded Batch if batch is set, else an encoded Proposal.
	data  []byte
	batch bool
	// done is called once, from the batcher's goroutines, in the order of
	// proposing; it must not block. An error means that the outcome is unknown.
	done func(result, error)
}

func (p *proposal) size() int { return len(p.data) + 16 }

// batcher is the one door to a group's log. It gathers what waits into one
// entry, keeps entriesInFlight of them, uses no timer, and completes in order.
type batcher struct {
	in    chan *proposal
	slots chan struct{}
	out   chan flight
	// stamp, if not nil, is the clock that entries carry.
	stamp func() uint64
	// format, if not nil, is the format in which entries may be written.
	format func() uint32
	// took, if not nil, is told how long each entry took that was committed.
	took func(time.Duration)
}

type flight struct {
	future future
	err    error
	props  []*proposal
	at     time.Time // of the proposal
}

func newBatcher() *batcher {
	return &batcher{
		in:    make(chan *proposal, proposeQueue),
		slots: make(chan struct{}, entriesInFlight),
		out:   make(chan flight, entriesInFlight),
	}
}

// propose queues p, waiting while the queue is full. It reports false, without
// calling done, when ctx ends first.
func (b *batcher) propose(ctx context.Context, p *proposal) bool {
	select {
	case b.in <- p:
		return true
	case <-ctx.Done():
		return false
	}
}

// run gathers entries and applies them until ctx ends.
func (b *batcher) run(ctx context.Context, apply func(entry []byte) (future, error)) {
	var next *proposal // taken, but too large for the entry before
	for {
		select {
		case b.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if next == nil {
			select {
			case next = <-b.in:
			case <-ctx.Done():
				return
			}
		}
		var props []*proposal
		props, next = b.gather(next)
		at := time.Now()
		f, err := apply(appendEntry(b.entryFormat(), b.clock(), props))
		b.out <- flight{f, err, props, at}
	}
}

// gather takes what waits, from first on, up to the bounds of an entry.
func (b *batcher) gather(first *proposal) (props []*proposal, next *proposal) {
	props = []*proposal{first}
	bytes := first.size()
	for {
		select {
		case p := <-b.in:
			bytes += p.size()
			if bytes > entryBytes {
				return props, p
			}
			props = append(props, p)
		default:
			return props, nil
		}
	}
}

func (b *batcher) clock() uint64 {
	if b.stamp == nil {
		return 0
	}
	return b.stamp()
}

// entryFormat is the format of the next entry.
func (b *batcher) entryFormat() uint32 {
	if b.format == nil {
		return entryFormat
	}
	return b.format()
}

// appendEntry encodes an Entry around already encoded proposals.
func appendEntry(format uint32, clockMs uint64, props []*proposal) []byte {
	total := 16
	for _, p := range props {
		total += p.size()
	}
	dst := make([]byte, 0, total)
	dst = protowire.AppendTag(dst, fieldEntryFormat, protowire.VarintType)
	dst = protowire.AppendVarint(dst, uint64(format))
	if clockMs > 0 {
		dst = protowire.AppendTag(dst, fieldEntryClock, protowire.VarintType)
		dst = protowire.AppendVarint(dst, clockMs)
	}
	for _, p := range props {
		dst = protowire.AppendTag(dst, fieldEntryProposals, protowire.BytesType)
		if !p.batch {
			dst = protowire.AppendBytes(dst, p.data)
			continue
		}
		inner := protowire.SizeTag(fieldProposalBatch) + protowire.SizeBytes(len(p.data))
		dst = protowire.AppendVarint(dst, uint64(inner))
		dst = protowire.AppendTag(dst, fieldProposalBatch, protowire.BytesType)
		dst = protowire.AppendBytes(dst, p.data)
	}
	return dst
}

// complete answers proposals in order until ctx ends. What is left then is not
// answered: whoever waits looks at the same end.
func (b *batcher) complete(ctx context.Context) {
	for {
		select {
		case f := <-b.out:
			if f.answer() && b.took != nil {
				b.took(time.Since(f.at))
			}
			<-b.slots
		case <-ctx.Done():
			return
		}
	}
}

// answer answers all of the entry, and tells whether it was committed.
func (f flight) answer() (committed bool) {
	err := f.err
	var results []result
	if err == nil {
		var response any
		if response, err = f.future.wait(); err == nil {
			var ok bool
			if results, ok = response.([]result); !ok || len(results) != len(f.props) {
				err = fmt.Errorf("apply entry: %v", response)
			}
		}
	}
	for i, p := range f.props {
		if err != nil {
			p.done(result{}, err)
		} else {
			p.done(results[i], nil)
		}
	}
	return err == nil
}
