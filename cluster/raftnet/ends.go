package raftnet

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// Ends finds disks that were put back from a copy of their latest boot, which
// boots cannot tell: they have forgotten votes they gave and entries they
// acknowledged. Servers remember, in memory, up to which committed entry each
// other server of a group is known to have had its log on disk: a leader by the
// answers to its AppendEntries, a follower by the commit index that its leader
// tells, as a leader stores what it sends. The end of a disk's log, or of its
// checkpoint if that is later, never falls below that. What was not committed may
// be gone, and counts for nothing here.
//
// Each stream tells the end of the asking disk in its group, and what is known of
// the disk that is asked. A disk that ends below what a peer knows takes no part
// in the group, neither asking nor answering, until Trust is called: Short is
// told, which finds out whether the knowledge is of a replica that was thrown
// away since. A disk that asks and is known to have had more is refused.
//
// Who has not heard knows nothing: a cluster that was restarted as a whole checks
// nothing of what was before, and locks out nobody. The functions are called for
// each new stream.
type Ends struct {
	// Own is the index at which this disk ends in a group: that of its last entry,
	// or of its checkpoint if that is higher; 0 if it has neither.
	Own func(group uint32) uint64
	// Led is the term in which this server leads a group and the commit index that
	// it has reached in that term; 0, 0 if it does not lead.
	Led func(group uint32) (term, commit uint64)
	// Short is called when this disk ends below known, the index of a committed
	// entry of group that peer knows this disk to have had.
	Short func(group uint32, peer string, known uint64)
}

// ends is what a Mux knows of the ends of others' disks, and of its own.
type ends struct {
	Ends
	mu      sync.Mutex
	members map[uint32]map[string]*knownEnd
	// short are the groups in which this disk takes no part.
	short map[uint32]bool
}

// knownEnd is what is known of one server's disk in one group.
type knownEnd struct {
	// committed is the highest committed entry that the disk had.
	committed uint64
	// last is the highest entry that it had, committed or not yet, as long as this
	// server's log has the same one: see settle.
	last struct{ lead, index, term uint64 }
	// since is when Unmatch was called, on Now's clock.
	since time.Duration
}

// CheckEnds makes m find disks that were put back. It is called before anything is
// served or sent.
func (m *Mux) CheckEnds(e Ends) {
	m.ends = &ends{Ends: e, members: make(map[uint32]map[string]*knownEnd), short: make(map[uint32]bool)}
}

// Members tells the servers of a group's committed configuration, none if this
// node has no replica. What is known of others is forgotten: a replica may be
// thrown away once it is not a member.
func (m *Mux) Members(group uint32, servers []raft.Server) {
	e := m.ends
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	known := make(map[string]*knownEnd, len(servers))
	for _, s := range servers {
		id := string(s.ID)
		if known[id] = e.members[group][id]; known[id] == nil {
			known[id] = &knownEnd{}
		}
	}
	e.members[group] = known
}

// unmatch forgets what is known of a server, and what it answers to requests that
// were sent before.
func (e *ends) unmatch(group uint32, server string) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if k := e.members[group][server]; k != nil {
		*k = knownEnd{since: Now()}
	}
}

// had notes that a server has all entries of an AppendEntries, and those before
// it: it has accepted them from this server, or sent them as a leader.
func (e *ends) had(group uint32, server string, r *raft.AppendEntriesRequest, sent time.Duration) {
	if e == nil || isHeartbeat(r) {
		return
	}
	index, term := r.PrevLogEntry, r.PrevLogTerm
	if n := len(r.Entries); n > 0 {
		index, term = r.Entries[n-1].Index, r.Entries[n-1].Term
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.members[group][server]
	if k == nil || sent < k.since || r.Term < k.last.lead {
		return
	}
	k.committed = max(k.committed, min(index, r.LeaderCommitIndex))
	if r.Term > k.last.lead || index > k.last.index {
		k.last.lead, k.last.index, k.last.term = r.Term, index, term
	}
}

// led notes what the answer to an AppendEntries of a leader says of the leader's
// own disk.
func (e *ends) led(group uint32, leader string, cmd, response any) {
	req, ok := cmd.(*raft.AppendEntriesRequest)
	resp, ok2 := response.(*raft.AppendEntriesResponse)
	if ok && ok2 && resp.Success && resp.Term == req.Term {
		e.had(group, leader, req, math.MaxInt64)
	}
}

// Settle is called by a leader that has applied the first entry of its term: all
// of its log before is committed. What servers were known to have had of it, not
// yet committed then, is known now. term returns the term of an entry of the log,
// 0 if the log does not have it.
func (m *Mux) Settle(group uint32, term func(index uint64) uint64) {
	e := m.ends
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.members[group] {
		if k.last.index > k.committed && term(k.last.index) == k.last.term {
			k.committed = k.last.index
		}
	}
}

// Known returns the highest committed entry of a group that a server is known to
// have had on its disk, 0 if nothing is known.
func (m *Mux) Known(group uint32, server string) uint64 {
	e := m.ends
	if e == nil {
		return 0
	}
	term, commit := e.Led(group)
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.members[group][server]
	if k == nil {
		return 0
	}
	if term != 0 && k.last.lead == term {
		k.committed = max(k.committed, min(k.last.index, commit))
	}
	return k.committed
}

// Trust lets this disk take part in a group again.
func (m *Mux) Trust(group uint32) {
	m.ends.mu.Lock()
	defer m.ends.mu.Unlock()
	delete(m.ends.short, group)
}

func (e *ends) isShort(group uint32) bool {
	if e == nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.short[group]
}

// Names of what streams tell of ends. It is not in the hello, where builds that do
// not know it would refuse it.
const (
	endKey   = "shoal-end"
	knownKey = "shoal-known"
)

// tellEnds adds to the context of a new stream of a group to a server what is to
// be told of both disks.
func (m *Mux) tellEnds(ctx context.Context, group uint32, to string) context.Context {
	if m.ends == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx,
		endKey, strconv.FormatUint(m.ends.Own(group), 10), knownKey, strconv.FormatUint(m.Known(group, to), 10))
}

// told reads one of the keys; ok is false if the peer does not tell.
func told(ctx context.Context, key string) (index uint64, ok bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(key); len(v) == 1 {
		index, err := strconv.ParseUint(v[0], 10, 64)
		return index, err == nil
	}
	return 0, false
}

// checkEnds refuses a stream if one of its ends is on a disk that has lost
// committed entries.
func (m *Mux) checkEnds(ctx context.Context, h hello) error {
	if m.ends == nil {
		return nil
	}
	if known, ok := told(ctx, knownKey); ok && known > m.ends.Own(h.group) {
		m.ends.mu.Lock()
		m.ends.short[h.group] = true
		m.ends.mu.Unlock()
		m.ends.Short(h.group, h.from, known)
		return m.refuse(slog.LevelWarn, codes.FailedPrecondition, h.from,
			fmt.Sprintf("%s knows %d committed entries of group %d that this disk had, and it ends earlier: the disk may be ROLLED BACK", h.from, known, h.group))
	}
	// What is known may have grown since the peer looked at its end, so that the
	// peer is refused though nothing is wrong. It asks again.
	if end, ok := told(ctx, endKey); ok && end < m.Known(h.group, h.from) {
		return m.refuse(slog.LevelInfo, codes.Unavailable, h.from,
			fmt.Sprintf("the disk of %s ends at %d in group %d, and is known to have had more", h.from, end, h.group))
	}
	return nil
}
