package storage

import "github.com/hashicorp/raft"

// tail holds the last entries of a log in memory, as many as fit.
type tail struct {
	limit, bytes int
	logs         []raft.Log // dense, ends with the last entry of the log
}

func (t *tail) find(index uint64) *raft.Log {
	if len(t.logs) == 0 || index < t.logs[0].Index || index-t.logs[0].Index >= uint64(len(t.logs)) {
		return nil
	}
	return &t.logs[index-t.logs[0].Index]
}

func tailCost(l *raft.Log) int { return entryOverhead + len(l.Data) + len(l.Extensions) }

// append adds entries that follow the last one. The newest stays even if it
// alone is above the limit: it is about to be read for each follower.
func (t *tail) append(logs []*raft.Log) {
	for _, l := range logs {
		t.logs = append(t.logs, *l)
		t.bytes += tailCost(l)
	}
	drop := 0
	for t.bytes > t.limit && drop < len(t.logs)-1 {
		t.bytes -= tailCost(&t.logs[drop])
		drop++
	}
	t.dropFront(drop)
}

// dropFront drops the first n; what they point to must not be held by the array
// behind the slice.
func (t *tail) dropFront(n int) {
	clear(t.logs[:n])
	t.logs = t.logs[n:]
	if len(t.logs) == 0 {
		t.logs = nil
	}
}

// keep drops what is not in [first, last]; last 0 drops all.
func (t *tail) keep(first, last uint64) {
	n := 0
	for n < len(t.logs) && (t.logs[n].Index < first || t.logs[n].Index > last) {
		t.bytes -= tailCost(&t.logs[n])
		n++
	}
	t.dropFront(n)
	for len(t.logs) > 0 && t.logs[len(t.logs)-1].Index > last {
		end := len(t.logs) - 1
		t.bytes -= tailCost(&t.logs[end])
		t.logs[end] = raft.Log{}
		t.logs = t.logs[:end]
	}
}
