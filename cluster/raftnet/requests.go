//lint:file-ignore SA1019 raft still fills the deprecated fields, and they are carried as they are.

package raftnet

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// entryOverhead is about what an entry takes beside its data.
const entryOverhead = 32

func (w *writer) header(h raft.RPCHeader) {
	w.uint(uint64(h.ProtocolVersion))
	w.bytes(h.ID)
	w.bytes(h.Addr)
}

func (p *parser) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersion(p.uint()), ID: p.bytes(), Addr: p.bytes()}
}

// isHeartbeat: raft sends nothing but its term and who it is.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return len(r.Entries) == 0 && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && r.LeaderCommitIndex == 0
}

func encodeHeartbeat(r *raft.AppendEntriesRequest) *frame {
	w := newWriter(byte(KindHeartbeat), 24+len(r.ID)+len(r.Addr)+len(r.Leader))
	w.header(r.RPCHeader)
	w.uint(r.Term)
	w.bytes(r.Leader)
	return w.frame()
}

func encodeAppend(r *raft.AppendEntriesRequest) *frame {
	size := 64 + len(r.ID) + len(r.Addr) + len(r.Leader)
	for _, e := range r.Entries {
		size += entryOverhead + len(e.Extensions)
		if len(e.Data) < referenceBytes {
			size += len(e.Data)
		}
	}
	w := newWriter(byte(KindAppend), size)
	w.header(r.RPCHeader)
	w.uint(r.Term)
	w.bytes(r.Leader)
	w.uint(r.PrevLogEntry)
	w.uint(r.PrevLogTerm)
	w.uint(r.LeaderCommitIndex)
	w.uint(uint64(len(r.Entries)))
	for _, e := range r.Entries {
		w.entry(e)
	}
	return w.frame()
}

func (w *writer) entry(e *raft.Log) {
	w.uint(e.Index)
	w.uint(e.Term)
	w.buf = append(w.buf, byte(e.Type))
	var at uint64 // 0 is "no time"
	if !e.AppendedAt.IsZero() {
		at = uint64(e.AppendedAt.UnixNano())
	}
	w.uint(at)
	w.bytes(e.Extensions)
	w.data(e.Data)
}

func (p *parser) entry(e *raft.Log) {
	e.Index = p.uint()
	e.Term = p.uint()
	e.Type = raft.LogType(p.byte())
	if at := p.uint(); at != 0 {
		e.AppendedAt = time.Unix(0, int64(at))
	}
	e.Extensions = p.bytes()
	e.Data = p.bytes()
}

func parseHeartbeat(p *parser) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: p.header(), Term: p.uint(), Leader: p.bytes()}
}

func parseAppend(p *parser) *raft.AppendEntriesRequest {
	r := parseHeartbeat(p) // the same first fields
	r.PrevLogEntry = p.uint()
	r.PrevLogTerm = p.uint()
	r.LeaderCommitIndex = p.uint()
	n := p.uint()
	if n > uint64(len(p.b)) { // an entry has more than one byte
		p.fail(errTruncated)
		return r
	}
	entries := make([]raft.Log, n)
	r.Entries = make([]*raft.Log, n)
	for i := range entries {
		p.entry(&entries[i])
		r.Entries[i] = &entries[i]
	}
	return r
}

// bound cuts r's entries to maxAppendBytes, but leaves one. raft reads from
// the request what was sent and goes on behind it (a request may always carry
// fewer entries, Raft §5.3).
func bound(r *raft.AppendEntriesRequest) {
	size := 0
	for i, e := range r.Entries {
		size += entryOverhead + len(e.Data) + len(e.Extensions)
		if size > maxAppendBytes && i > 0 {
			r.Entries = r.Entries[:i]
			return
		}
	}
}

func encodeVote(r *raft.RequestVoteRequest) *frame {
	w := newWriter(byte(KindVote), 48+len(r.ID)+len(r.Addr)+len(r.Candidate))
	w.header(r.RPCHeader)
	w.uint(r.Term)
	w.bytes(r.Candidate)
	w.uint(r.LastLogIndex)
	w.uint(r.LastLogTerm)
	w.bool(r.LeadershipTransfer)
	return w.frame()
}

func parseVote(p *parser) *raft.RequestVoteRequest {
	return &raft.RequestVoteRequest{
		RPCHeader: p.header(), Term: p.uint(), Candidate: p.bytes(),
		LastLogIndex: p.uint(), LastLogTerm: p.uint(), LeadershipTransfer: p.bool(),
	}
}

func encodePreVote(r *raft.RequestPreVoteRequest) *frame {
	w := newWriter(byte(KindPreVote), 48+len(r.ID)+len(r.Addr))
	w.header(r.RPCHeader)
	w.uint(r.Term)
	w.uint(r.LastLogIndex)
	w.uint(r.LastLogTerm)
	return w.frame()
}

func parsePreVote(p *parser) *raft.RequestPreVoteRequest {
	return &raft.RequestPreVoteRequest{
		RPCHeader: p.header(), Term: p.uint(), LastLogIndex: p.uint(), LastLogTerm: p.uint(),
	}
}

func encodeTimeoutNow(r *raft.TimeoutNowRequest) *frame {
	w := newWriter(byte(KindTimeoutNow), 16+len(r.ID)+len(r.Addr))
	w.header(r.RPCHeader)
	return w.frame()
}

func encodeSnapshot(r *raft.InstallSnapshotRequest) *frame {
	w := newWriter(byte(KindSnapshot), 128+len(r.Peers)+len(r.Configuration))
	w.header(r.RPCHeader)
	w.uint(uint64(r.SnapshotVersion))
	w.uint(r.Term)
	w.bytes(r.Leader)
	w.uint(r.LastLogIndex)
	w.uint(r.LastLogTerm)
	w.bytes(r.Peers)
	w.bytes(r.Configuration)
	w.uint(r.ConfigurationIndex)
	w.uint(uint64(r.Size))
	return w.frame()
}

func parseSnapshot(p *parser) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{
		RPCHeader: p.header(), SnapshotVersion: raft.SnapshotVersion(p.uint()),
		Term: p.uint(), Leader: p.bytes(), LastLogIndex: p.uint(), LastLogTerm: p.uint(),
		Peers: p.bytes(), Configuration: p.bytes(), ConfigurationIndex: p.uint(), Size: int64(p.uint()),
	}
}

// parseRequest reads any request frame into the command that raft expects.
func parseRequest(b []byte) (Kind, any, error) {
	p := &parser{b: b}
	kind := Kind(p.byte())
	var cmd any
	switch kind {
	case KindHeartbeat:
		cmd = parseHeartbeat(p)
	case KindAppend:
		cmd = parseAppend(p)
	case KindVote:
		cmd = parseVote(p)
	case KindPreVote:
		cmd = parsePreVote(p)
	case KindTimeoutNow:
		cmd = &raft.TimeoutNowRequest{RPCHeader: p.header()}
	case KindSnapshot:
		cmd = parseSnapshot(p)
	default:
		if p.err == nil {
			return 0, nil, fmt.Errorf("request has unknown kind %d", kind)
		}
	}
	if err := p.done(); err != nil {
		return 0, nil, fmt.Errorf("%s request: %w", kind, err)
	}
	return kind, cmd, nil
}
