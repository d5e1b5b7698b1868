package raftnet

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// InstallSnapshot implements raft.Transport: the request, then data in chunks.
// It fails when the stream stands still for chunkTimeout, or the receiver
// works longer than installTimeout on the whole.
func (t *Transport) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	s := t.newStream(to, Append)
	defer s.cancel()
	timer := time.AfterFunc(chunkTimeout, s.cancel)
	defer timer.Stop()
	if err := s.open(&snapshotMethod); err != nil {
		return fmt.Errorf("install snapshot on %s: %w", to, err)
	}
	if err := s.pass(KindSnapshot, false); err != nil {
		return fmt.Errorf("install snapshot on %s: %w", to, err)
	}
	if err := s.sendSnapshot(encodeSnapshot(args), io.LimitReader(data, args.Size), timer); err != nil {
		return fmt.Errorf("install snapshot on %s: %w", to, err)
	}
	timer.Reset(installTimeout)
	if err := s.receive(KindSnapshot, resp); err != nil {
		return fmt.Errorf("install snapshot on %s: %w", to, err)
	}
	return nil
}

// sendSnapshot sends everything. When the receiver ends the stream early it
// returns nil: the answer says why.
func (s *stream) sendSnapshot(req *frame, data io.Reader, timer *time.Timer) error {
	err := s.SendMsg(req)
	for err == nil {
		chunk := make([]byte, 1+snapshotChunkBytes) // gRPC owns it once it is sent
		chunk[0] = tagChunk
		n, readErr := io.ReadFull(data, chunk[1:])
		if n > 0 {
			timer.Reset(chunkTimeout)
			err = s.SendMsg(&frame{mem.BufferSlice{mem.SliceBuffer(chunk[:1+n])}})
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return fmt.Errorf("read snapshot: %w", readErr)
		}
	}
	if err == nil {
		err = s.CloseSend()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// serveSnapshot serves one InstallSnapshot. raft reads the chunks through a
// pipe, on its main loop.
func (m *Mux) serveSnapshot(_ any, s grpc.ServerStream) error {
	h, err := m.welcome(s)
	if err != nil {
		return err
	}
	kind, cmd, err := m.nextRequest(s, h)
	if err != nil {
		return err
	}
	t := m.lookup(h.group)
	if kind != KindSnapshot || t == nil {
		return s.SendMsg(encodeAnswer(kind, raft.RPCResponse{Error: errNotOpen}))
	}
	r, w := io.Pipe()
	answer := make(chan raft.RPCResponse, 1)
	go func() { // ends when raft has answered, t is closed or s breaks
		a, err := t.serve(s.Context(), kind, cmd, r)
		if err != nil {
			a = raft.RPCResponse{Error: err}
		}
		r.CloseWithError(ErrClosed) // ends receiveChunks if raft did not read all
		answer <- a
	}()
	w.CloseWithError(receiveChunks(s, w))
	return s.SendMsg(encodeAnswer(kind, <-answer))
}

// receiveChunks writes the chunks of s to w until the sender is done (nil).
func receiveChunks(s grpc.ServerStream, w io.Writer) error {
	for {
		var chunk Raw
		if err := s.RecvMsg(&chunk); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("receive snapshot: %w", err)
		}
		if len(chunk.Data) == 0 || chunk.Data[0] != tagChunk {
			return errors.New("receive snapshot: frame is not a chunk")
		}
		if _, err := w.Write(chunk.Data[1:]); err != nil {
			return err
		}
	}
}
