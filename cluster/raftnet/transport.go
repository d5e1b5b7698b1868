package raftnet

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// Transport is one group's raft.Transport. It is safe for concurrent use.
type Transport struct {
	mux      *Mux
	group    uint32
	ctx      context.Context // done when closed
	cancel   context.CancelFunc
	consumer chan raft.RPC
	retired  chan struct{} // closed by Retire
	retire   sync.Once
	// heartbeat is raft's handler for the fast path.
	heartbeat atomic.Pointer[func(raft.RPC)]
	answers   confirmations

	mu   sync.Mutex
	idle map[idleKey][]*stream
	// settled is the term of which raft's main loop has answered a request
	// since this server was last a candidate; candidacies counts those times.
	settled     uint64
	candidacies uint64
	// leaderless is when this server was a candidate first since it had a leader
	// or led; 0 if it has not been.
	leaderless time.Duration
}

func newTransport(m *Mux, group uint32) *Transport {
	t := &Transport{mux: m, group: group, consumer: make(chan raft.RPC), retired: make(chan struct{}), idle: make(map[idleKey][]*stream)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Close implements raft.WithClose: it fails what is being sent and served.
// Mux.Group then opens the group anew.
func (t *Transport) Close() error {
	t.mux.remove(t)
	t.cancel() // also ends idle streams, whose contexts are children
	t.mu.Lock()
	clear(t.idle)
	t.mu.Unlock()
	return nil
}

// Retire refuses all requests that raft's main loop has not yet taken, except
// heartbeats it need not see; what it has taken is still answered. It is for an
// FSM whose raft instance is to be replaced after an install: entries that the
// old instance stored while it is being closed would never be answered for.
func (t *Transport) Retire() { t.retire.Do(func() { close(t.retired) }) }

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr implements raft.Transport: "node/disk".
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.mux.self) }

// EncodePeer implements raft.Transport.
func (t *Transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *Transport) SetHeartbeatHandler(handle func(raft.RPC)) { t.heartbeat.Store(&handle) }

// AppendEntries implements raft.Transport. It may cut args.Entries (bound).
func (t *Transport) AppendEntries(_ raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	kind, class, timeout := KindAppend, Append, appendTimeout
	var req *frame
	if isHeartbeat(args) {
		kind, class, timeout = KindHeartbeat, Control, controlTimeout
		req = encodeHeartbeat(args)
	} else {
		bound(args)
		req = encodeAppend(args)
	}
	sent, err := t.call(to, kind, class, timeout, req, resp)
	if err != nil {
		return err
	}
	t.answers.record(to, args.Term, resp.Term, sent)
	if resp.Term == args.Term {
		t.heardLeader()
	}
	if kind == KindAppend && resp.Success {
		t.answers.match(to, args.Term, args.PrevLogEntry+uint64(len(args.Entries)), sent)
		t.mux.ends.had(t.group, string(to), args, sent)
	}
	return nil
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	t.unsettle()
	_, err := t.call(to, KindVote, Control, controlTimeout, encodeVote(args), resp)
	return err
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if waited := t.unsettle(); t.mux.abstains.Load() && waited < abstainTime {
		return ErrAbstains
	}
	_, err := t.call(to, KindPreVote, Control, controlTimeout, encodePreVote(args), resp)
	return err
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	_, err := t.call(to, KindTimeoutNow, Control, controlTimeout, encodeTimeoutNow(args), resp)
	return err
}

// serve hands a request to raft and waits for its answer. It returns an error
// when ctx is done or the Transport is closed before raft has answered.
func (t *Transport) serve(ctx context.Context, kind Kind, cmd any, data io.Reader) (raft.RPCResponse, error) {
	if err := t.mux.silence(t.group); err != nil {
		return raft.RPCResponse{}, err
	}
	answer := make(chan raft.RPCResponse, 1) // raft never blocks on it
	rpc := raft.RPC{Command: cmd, Reader: data, RespChan: answer}
	fast, candidacies := t.fastPath(kind, cmd)
	if fast != nil {
		fast(rpc)
	} else {
		select {
		case <-t.retired:
			return raft.RPCResponse{}, errNotOpen
		default:
		}
		select {
		case t.consumer <- rpc:
		case <-t.retired:
			return raft.RPCResponse{}, errNotOpen
		case <-ctx.Done():
			return raft.RPCResponse{}, ctx.Err()
		case <-t.ctx.Done():
			return raft.RPCResponse{}, errNotOpen
		}
	}
	var a raft.RPCResponse
	select {
	case a = <-answer:
	case <-ctx.Done():
		return raft.RPCResponse{}, ctx.Err()
	case <-t.ctx.Done():
		select { // raft answers, for example an install, and is closed at once
		case a = <-answer:
		default:
			return raft.RPCResponse{}, errNotOpen
		}
	}
	t.settle(cmd, a.Response, candidacies)
	return a, nil
}

// fastPath returns raft's heartbeat handler if the request may take it (see the
// package comment), and the count of candidacies to give to settle.
func (t *Transport) fastPath(kind Kind, cmd any) (func(raft.RPC), uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if kind == KindHeartbeat && cmd.(*raft.AppendEntriesRequest).Term == t.settled {
		if handle := t.heartbeat.Load(); handle != nil {
			return *handle, t.candidacies
		}
	}
	return nil, t.candidacies
}

// settle notes that raft has accepted the term of an AppendEntries.
func (t *Transport) settle(cmd, response any, candidacies uint64) {
	req, ok := cmd.(*raft.AppendEntriesRequest)
	resp, ok2 := response.(*raft.AppendEntriesResponse)
	if !ok || !ok2 || req.Term != resp.Term {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaderless = 0
	if t.candidacies == candidacies {
		t.settled = req.Term
	}
}

// heardLeader notes that the group has a leader: this server.
func (t *Transport) heardLeader() {
	t.mu.Lock()
	t.leaderless = 0
	t.mu.Unlock()
}

// unsettle notes that this server is a candidate, and returns for how long it has
// been without a leader.
func (t *Transport) unsettle() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled = 0
	t.candidacies++
	if t.leaderless == 0 {
		t.leaderless = Now()
	}
	return Now() - t.leaderless
}
