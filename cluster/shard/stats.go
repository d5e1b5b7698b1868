package shard

import "fmt"

// gauges count what is in the state now.
type gauges struct {
	durable       int
	attached      int
	subscriptions int
	queued        int
	bodies        int
	bodyBytes     int
	memory        int
	retainedBytes int
	replaying     int
}

// Stats are a shard's figures for metrics: gauges first, then counters, which
// are part of the replicated state and so are the same on all replicas.
type Stats struct {
	// Sessions counts rows, Durable those of durable sessions, Attached those
	// with an owner.
	Sessions, Durable, Attached int
	Subscriptions, Filters      int
	// Queued counts unfinished queue entries.
	Queued int
	// Bodies are stored messages; BodyBytes is about what they would all take in
	// memory, MemoryBytes what those take that are there.
	Bodies, BodyBytes, MemoryBytes int
	// Retained are retained messages, RetainedBytes what they take in memory;
	// Replays counts sessions that are owed some.
	Retained, RetainedBytes, Replays int
	// OutboxEntries counts unanswered outbox entries of all targets.
	OutboxEntries, OutboxBytes int
	// Due counts messages that wait to be dispatched.
	Due int

	// Appended counts messages matched, Enqueued queue entries made of them.
	// See Account.
	Appended, Enqueued, Acked, Expired, SessionEnded, DroppedOldest uint64
	// QueueFull counts copies dropped at a session's limit, Rejected those
	// whose publisher was to be told: neither was enqueued.
	QueueFull, Rejected uint64
	// OutboxFenced counts outbox entries dropped with their target's process,
	// OutboxRefused those that the target did not answer with "done".
	OutboxFenced, OutboxRefused uint64
	// ReceivedReplaced counts QoS 2 exchanges abandoned by their publisher.
	ReceivedReplaced uint64
	// RetainedExpired counts retained messages that expired.
	RetainedExpired uint64
	// Wills counts Will Messages that became due.
	Wills uint64
	// Redispatched counts queue entries of Shared Subscriptions that went to
	// another member, NoMember messages for which there was none.
	Redispatched, NoMember uint64
}

// Stats returns the shard's figures.
func (m *Machine) Stats() Stats {
	s := Stats{
		Sessions:      len(m.sessions),
		Durable:       m.gauges.durable,
		Attached:      m.gauges.attached,
		Subscriptions: m.gauges.subscriptions,
		Filters:       m.filters.Len() + len(m.shares),
		Queued:        m.gauges.queued,
		Bodies:        m.gauges.bodies,
		BodyBytes:     m.gauges.bodyBytes,
		MemoryBytes:   m.gauges.memory,
		Retained:      m.retained.Len(),
		RetainedBytes: m.gauges.retainedBytes,
		Replays:       m.gauges.replaying,

		Appended:         m.counters.Appended,
		Enqueued:         m.counters.Enqueued,
		Acked:            m.counters.Acked,
		Expired:          m.counters.Expired,
		SessionEnded:     m.counters.SessionEnded,
		DroppedOldest:    m.counters.DroppedOldest,
		QueueFull:        m.counters.QueueFull,
		Rejected:         m.counters.Rejected,
		OutboxFenced:     m.counters.OutboxFenced,
		OutboxRefused:    m.counters.OutboxRefused,
		ReceivedReplaced: m.counters.ReceivedReplaced,
		Wills:            m.counters.Wills,
		RetainedExpired:  m.counters.RetainedExpired,
		Redispatched:     m.counters.Redispatched,
		NoMember:         m.counters.NoMember,
		Due:              m.due.count,
	}
	for _, o := range m.outboxes {
		s.OutboxEntries += len(o.entries)
		s.OutboxBytes += o.bytes
	}
	return s
}

// Account returns an error unless what became of every entry that was put into a
// queue is known: it was acknowledged, it expired, its session ended, it made
// room for newer ones, it went to another member of a Shared Subscription, or it
// is there.
func (s *Stats) Account() error {
	if known := s.Acked + s.Expired + s.SessionEnded + s.DroppedOldest + s.Redispatched + uint64(s.Queued); s.Enqueued != known {
		return fmt.Errorf("%d entries were enqueued, %d are accounted for: %+v", s.Enqueued, known, *s)
	}
	return nil
}

// DirtyRefs is the number of references made and dropped since the last
// checkpoint, DirtyBytes the size of messages stored since then: a checkpoint
// is due when one of them is large.
func (m *Machine) DirtyRefs() int  { return m.file.refs }
func (m *Machine) DirtyBytes() int { return m.file.bytes }
