package raftnet

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// encodeAnswer encodes what raft answered to a request of kind: an error in
// words (empty for none), then the response if there is one.
func encodeAnswer(kind Kind, a raft.RPCResponse) *frame {
	w := newWriter(byte(kind)|tagAnswer, 64)
	text := ""
	if a.Error != nil {
		text = a.Error.Error()
	}
	w.string(text)
	switch r := a.Response.(type) {
	case *raft.AppendEntriesResponse:
		w.header(r.RPCHeader)
		w.uint(r.Term)
		w.uint(r.LastLog)
		w.bool(r.Success)
		w.bool(r.NoRetryBackoff)
	case *raft.RequestVoteResponse:
		w.header(r.RPCHeader)
		w.uint(r.Term)
		w.bytes(r.Peers)
		w.bool(r.Granted)
	case *raft.RequestPreVoteResponse:
		w.header(r.RPCHeader)
		w.uint(r.Term)
		w.bool(r.Granted)
	case *raft.TimeoutNowResponse:
		w.header(r.RPCHeader)
	case *raft.InstallSnapshotResponse:
		w.header(r.RPCHeader)
		w.uint(r.Term)
		w.bool(r.Success)
	}
	return w.frame()
}

// parseAnswer reads the answer to a request of kind into resp, which must have
// the type that belongs to kind. An error of the answering side is returned as
// a *RemoteError.
func parseAnswer(b []byte, kind Kind, resp any) error {
	p := &parser{b: b}
	if tag := p.byte(); p.err == nil && tag != byte(kind)|tagAnswer {
		return fmt.Errorf("frame %#x is not the answer to a %s", tag, kind)
	}
	if text := p.string(); text != "" {
		return &RemoteError{text}
	}
	switch r := resp.(type) {
	case *raft.AppendEntriesResponse:
		*r = raft.AppendEntriesResponse{RPCHeader: p.header(), Term: p.uint(), LastLog: p.uint(), Success: p.bool(), NoRetryBackoff: p.bool()}
	case *raft.RequestVoteResponse:
		*r = raft.RequestVoteResponse{RPCHeader: p.header(), Term: p.uint(), Peers: p.bytes(), Granted: p.bool()}
	case *raft.RequestPreVoteResponse:
		*r = raft.RequestPreVoteResponse{RPCHeader: p.header(), Term: p.uint(), Granted: p.bool()}
	case *raft.TimeoutNowResponse:
		*r = raft.TimeoutNowResponse{RPCHeader: p.header()}
	case *raft.InstallSnapshotResponse:
		*r = raft.InstallSnapshotResponse{RPCHeader: p.header(), Term: p.uint(), Success: p.bool()}
	default:
		return fmt.Errorf("answer to a %s has no type", kind)
	}
	if err := p.done(); err != nil {
		return fmt.Errorf("answer to a %s: %w", kind, err)
	}
	return nil
}

// RemoteError is what the answering side's raft returned as an error.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return e.Text }

var errNotOpen = errors.New("group is not open on this node")
