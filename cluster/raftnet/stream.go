package raftnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
)

// stream is the asking side of a stream of one group to one peer. One
// goroutine at a time uses it.
type stream struct {
	t      *Transport
	to     raft.ServerAddress
	class  Class
	ctx    context.Context
	cancel context.CancelFunc // ends the stream
	grpc.ClientStream
}

// newStream returns a stream that is not open yet, so that its owner can set a
// timer that cancels it first.
func (t *Transport) newStream(to raft.ServerAddress, class Class) *stream {
	s := &stream{t: t, to: to, class: class}
	s.ctx, s.cancel = context.WithCancel(t.ctx)
	return s
}

// open opens the stream and sends its hello.
func (s *stream) open(method *grpc.StreamDesc) error {
	m := s.t.mux
	node, _, ok := strings.Cut(string(s.to), "/")
	if !ok {
		return fmt.Errorf("server address %q is not node/disk", s.to)
	}
	conn, err := m.pool.Conn(node, s.class)
	if err != nil {
		return err
	}
	ctx := m.tellEnds(s.ctx, s.t.group, string(s.to))
	s.ClientStream, err = conn.NewStream(ctx, method, "/"+serviceName+"/"+method.StreamName)
	if err != nil {
		return err
	}
	boot, known := m.bootsTo(string(s.to))
	return s.send(hello{cluster: m.clusterID(), from: m.self, to: string(s.to), group: s.t.group, boot: boot, known: known}.encode())
}

// send sends a frame. If the peer has ended the stream it returns why.
func (s *stream) send(f *frame) error {
	err := s.SendMsg(f)
	if errors.Is(err, io.EOF) {
		var answer Raw
		if err := s.RecvMsg(&answer); err != nil {
			return err
		}
		return errors.New("the peer answered before it was asked")
	}
	return err
}

// pass keeps back requests of a node that is silent, and lets the fault, if any, hold or
// drop a message.
func (s *stream) pass(kind Kind, answer bool) error {
	if !answer {
		if err := s.t.mux.silence(s.t.group); err != nil {
			return err
		}
	}
	f := s.t.mux.pool.cfg.Fault
	if f == nil {
		return nil
	}
	m := Message{From: s.t.mux.self, To: string(s.to), Group: s.t.group, Kind: kind, Answer: answer}
	if answer {
		m.From, m.To = m.To, m.From
	}
	return f.Pass(s.ctx, m)
}

// exchange sends a request and waits for its answer. It returns when the
// request was sent. After an error other than *RemoteError the stream is of no
// use.
func (s *stream) exchange(kind Kind, req *frame, resp any) (sent time.Duration, err error) {
	if s.ClientStream == nil {
		if err := s.open(&callsMethod); err != nil {
			return 0, err
		}
	}
	sent = Now()
	if err := s.pass(kind, false); err != nil {
		return sent, err
	}
	if err := s.send(req); err != nil {
		return sent, err
	}
	return sent, s.receive(kind, resp)
}

// receive waits for the answer to a request.
func (s *stream) receive(kind Kind, resp any) error {
	var answer Raw
	if err := s.RecvMsg(&answer); err != nil {
		return err
	}
	if err := s.pass(kind, true); err != nil {
		return err
	}
	return parseAnswer(answer.Data, kind, resp)
}

type idleKey struct {
	to    raft.ServerAddress
	class Class
}

// acquire returns an idle stream, or a new one that is not open yet.
func (t *Transport) acquire(to raft.ServerAddress, class Class) (s *stream, reused bool) {
	key := idleKey{to, class}
	t.mu.Lock()
	if idle := t.idle[key]; len(idle) > 0 {
		s = idle[len(idle)-1]
		t.idle[key] = idle[:len(idle)-1]
	}
	t.mu.Unlock()
	if s != nil {
		return s, true
	}
	return t.newStream(to, class), false
}

// release keeps a stream for the next call, or ends it.
func (t *Transport) release(s *stream) {
	key := idleKey{s.to, s.class}
	t.mu.Lock()
	keep := t.ctx.Err() == nil && len(t.idle[key]) < idleStreams
	if keep {
		t.idle[key] = append(t.idle[key], s)
	}
	t.mu.Unlock()
	if !keep {
		s.cancel()
	}
}

// dropIdle ends the idle streams to a peer.
func (t *Transport) dropIdle(to raft.ServerAddress, class Class) {
	key := idleKey{to, class}
	t.mu.Lock()
	idle := t.idle[key]
	delete(t.idle, key)
	t.mu.Unlock()
	for _, s := range idle {
		s.cancel()
	}
}

// call asks a peer and waits for its answer, at most for timeout. It returns
// when the answered request was sent.
func (t *Transport) call(to raft.ServerAddress, kind Kind, class Class, timeout time.Duration, req *frame, resp any) (time.Duration, error) {
	for {
		s, reused := t.acquire(to, class)
		timer := time.AfterFunc(timeout, s.cancel)
		sent, err := s.exchange(kind, req, resp)
		inTime := timer.Stop()
		var remote *RemoteError
		if inTime && (err == nil || errors.As(err, &remote)) {
			t.release(s)
			return sent, err
		}
		s.cancel()
		switch {
		case t.ctx.Err() != nil:
			return 0, ErrClosed
		case !inTime:
			return 0, fmt.Errorf("%s to %s: no answer within %v", kind, to, timeout)
		case !reused:
			return 0, fmt.Errorf("%s to %s: %w", kind, to, err)
		}
		// The idle stream had died with an earlier connection, and so have its
		// siblings. All requests may be repeated: ask once more.
		t.dropIdle(to, class)
	}
}
