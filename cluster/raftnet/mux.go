package raftnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const serviceName = "shoal.v1.Raft"

var (
	// callsMethod carries requests and answers of one group in turn.
	callsMethod = grpc.StreamDesc{StreamName: "Calls", ClientStreams: true, ServerStreams: true}
	// snapshotMethod carries one snapshot.
	snapshotMethod = grpc.StreamDesc{StreamName: "Snapshot", ClientStreams: true, ServerStreams: true}
)

// Mux receives for all groups of this node and makes their Transports. It is
// safe for concurrent use.
type Mux struct {
	self      string
	clusterID func() string
	pool      *Pool
	log       *slog.Logger
	muted     atomic.Bool
	abstains  atomic.Bool
	boots     *Boots // nil: not checked
	ends      *ends  // nil: not checked

	mu      sync.RWMutex
	groups  map[uint32]*Transport
	closed  bool
	refused map[string]bool // peers and reasons already logged
}

// NewMux registers the raft service with srv, which must have ServerOptions.
// self is "node/disk", the ID and the address of this server in every group.
// clusterID returns the id of the cluster, empty before birth, and is called
// for each new stream. The pool stays the caller's.
func NewMux(self string, clusterID func() string, pool *Pool, srv grpc.ServiceRegistrar, log *slog.Logger) *Mux {
	m := &Mux{
		self: self, clusterID: clusterID, pool: pool, log: log,
		groups: make(map[uint32]*Transport), refused: make(map[string]bool),
	}
	calls, snapshot := callsMethod, snapshotMethod
	calls.Handler, snapshot.Handler = m.serveCalls, m.serveSnapshot
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{calls, snapshot},
	}, m)
	return m
}

// Group returns the open Transport of a group, or opens it. After Close of the
// Mux it returns a closed one.
func (m *Mux) Group(id uint32) *Transport {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.groups[id]; t != nil {
		return t
	}
	t := newTransport(m, id)
	if m.closed {
		t.cancel()
		return t
	}
	m.groups[id] = t
	return t
}

// ErrMuted is what requests get while the Mux is muted.
var ErrMuted = errors.New("this node is silent")

// Mute keeps back all requests of this node, of every group, and refuses those of
// others, or lets both go again. It is for a node that can not do what a replica
// has to, and whose raft instances cannot say so: a leader must not hold a
// quorum together that cannot commit. To raft it is a loss of messages.
func (m *Mux) Mute(on bool) { m.muted.Store(on) }

// Muted tells what Mute has been told last.
func (m *Mux) Muted() bool { return m.muted.Load() }

// ErrAbstains is what pre-votes get that a node asks for while it abstains.
var ErrAbstains = errors.New("this node leaves the election to others")

// Abstain makes this node leave elections to others, in every group, or ends
// that. It votes as ever, but asks for votes only when a group has been without a
// leader for abstainTime. It is for a node that others should be preferred to.
func (m *Mux) Abstain(on bool) { m.abstains.Store(on) }

// ErrShort is what requests get while this disk takes no part in a group.
var ErrShort = errors.New("this disk lacks entries of the group that it is known to have had")

// silence returns why this node keeps out of a group, nil if it does not.
func (m *Mux) silence(group uint32) error {
	switch {
	case m.muted.Load():
		return ErrMuted
	case m.ends.isShort(group):
		return ErrShort
	}
	return nil
}

// Close closes all Transports. The streams they serve end with the server.
func (m *Mux) Close() error {
	m.mu.Lock()
	groups := m.groups
	m.groups, m.closed = nil, true
	m.mu.Unlock()
	for _, t := range groups {
		t.Close()
	}
	return nil
}

func (m *Mux) lookup(group uint32) *Transport {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.groups[group]
}

// remove forgets t, unless the group has been opened anew.
func (m *Mux) remove(t *Transport) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.groups[t.group] == t {
		delete(m.groups, t.group)
	}
}

// serveCalls serves one stream of requests. The group is looked up for each, so
// that it can be closed and opened again below a stream.
func (m *Mux) serveCalls(_ any, s grpc.ServerStream) error {
	h, err := m.welcome(s)
	if err != nil {
		return err
	}
	for {
		kind, cmd, err := m.nextRequest(s, h)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a := raft.RPCResponse{Error: errNotOpen}
		if t := m.lookup(h.group); t != nil && kind != KindSnapshot {
			if a, err = t.serve(s.Context(), kind, cmd, nil); err != nil {
				a = raft.RPCResponse{Error: err}
			}
			m.ends.led(h.group, h.from, cmd, a.Response)
		}
		if err := s.SendMsg(encodeAnswer(kind, a)); err != nil {
			return err
		}
	}
}

// welcome receives a stream's hello and refuses those of other clusters and to
// other disks.
func (m *Mux) welcome(s grpc.ServerStream) (hello, error) {
	var first Raw
	if err := s.RecvMsg(&first); err != nil {
		return hello{}, err
	}
	h, err := parseHello(first.Data)
	if err != nil {
		return hello{}, m.refuse(slog.LevelWarn, codes.InvalidArgument, "?", err.Error())
	}
	cluster := m.clusterID()
	switch {
	case h.cluster == "" || cluster == "":
		return hello{}, status.Errorf(codes.Unavailable, "%s is of cluster %q, %s of cluster %q: wait", m.self, cluster, h.from, h.cluster)
	case h.cluster != cluster:
		return hello{}, m.refuse(slog.LevelError, codes.FailedPrecondition, h.from,
			fmt.Sprintf("%s is of cluster %s, %s of ANOTHER CLUSTER, %s", m.self, cluster, h.from, h.cluster))
	case h.to != m.self:
		return hello{}, m.refuse(slog.LevelWarn, codes.FailedPrecondition, h.from,
			fmt.Sprintf("this is %s, not %s", m.self, h.to))
	}
	if err := m.checkBoots(h); err != nil {
		return hello{}, err
	}
	return h, m.checkEnds(s.Context(), h)
}

// nextRequest receives a request; io.EOF is the sender's orderly end.
func (m *Mux) nextRequest(s grpc.ServerStream, h hello) (Kind, any, error) {
	var raw Raw
	if err := s.RecvMsg(&raw); err != nil {
		return 0, nil, err
	}
	kind, cmd, err := parseRequest(raw.Data)
	if err != nil {
		return 0, nil, m.refuse(slog.LevelWarn, codes.InvalidArgument, h.from, err.Error())
	}
	return kind, cmd, nil
}

// refuse returns the error that ends a stream, and logs it once for each peer
// and reason.
func (m *Mux) refuse(level slog.Level, code codes.Code, peer, reason string) error {
	key := peer + "\x00" + reason
	m.mu.Lock()
	news := !m.refused[key] && len(m.refused) < maxRefusalsLogged
	if news {
		m.refused[key] = true
	}
	m.mu.Unlock()
	if news {
		m.log.Log(context.Background(), level, "refused a raft stream", "peer", peer, "reason", reason)
	}
	return status.Error(code, reason)
}
