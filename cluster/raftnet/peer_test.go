package raftnet

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// answerAll answers what arrives for group 1 as raft would, until m stops.
func answerAll(m *member, answer func(cmd any) (any, error)) {
	tr := m.mux.Group(1)
	go func() {
		for {
			select {
			case rpc := <-tr.Consumer():
				rpc.Respond(answer(rpc.Command))
			case <-tr.ctx.Done():
				return
			}
		}
	}()
}

func agree(cmd any) (any, error) {
	return &raft.AppendEntriesResponse{Term: cmd.(*raft.AppendEntriesRequest).Term, Success: true}, nil
}

func heartbeat(m *member, to string, term uint64) error {
	var resp raft.AppendEntriesResponse
	return m.mux.Group(1).AppendEntries("", raft.ServerAddress(to), &raft.AppendEntriesRequest{Term: term}, &resp)
}

func pair(t *testing.T, l *links) (a, b *member) {
	bk := &book{addrs: make(map[string]string)}
	return startMember(t, bk, l, "a", "d1", clusterOptions{}), startMember(t, bk, l, "b", "d2", clusterOptions{})
}

func TestWrongDiskIsRefused(t *testing.T) {
	a, b := pair(t, nil)
	answerAll(b, agree)
	if err := heartbeat(a, "b/d2", 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := heartbeat(a, "b/old", 1)
		if err == nil || !strings.Contains(err.Error(), "this is b/d2, not b/old") {
			t.Fatalf("to another disk: %v", err)
		}
	}
	if n := b.log.count("not b/old"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}

func TestOtherClusterIsRefused(t *testing.T) {
	a, b := pair(t, nil)
	answerAll(b, agree)
	b.cluster = "c2"
	err := heartbeat(a, "b/d2", 1)
	if err == nil || !strings.Contains(err.Error(), "ANOTHER CLUSTER") {
		t.Fatalf("to another cluster: %v", err)
	}
	if b.log.count("level=ERROR") != 1 {
		t.Errorf("log: %s", &b.log.buf)
	}
	b.cluster = ""
	if err := heartbeat(a, "b/d2", 1); status.Code(unwrap(err)) != codes.Unavailable {
		t.Fatalf("to an unborn node: %v", err)
	}
}

// unwrap returns the gRPC error inside.
func unwrap(err error) error {
	for err != nil {
		if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
			return err
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
	return nil
}

func TestClosedGroup(t *testing.T) {
	a, b := pair(t, nil)
	if err := heartbeat(a, "b/d2", 1); err == nil || !strings.Contains(err.Error(), errNotOpen.Error()) {
		t.Fatalf("to a group that is not open: %v", err)
	}
	answerAll(b, agree)
	if err := heartbeat(a, "b/d2", 1); err != nil {
		t.Fatal(err)
	}
	a.mux.Group(1).Close()
	if a.mux.Group(1).ctx.Err() != nil {
		t.Fatal("the group did not open again")
	}
	if err := heartbeat(a, "b/d2", 1); err != nil {
		t.Fatal(err)
	}
	a.mux.Close()
	if err := heartbeat(a, "b/d2", 1); err == nil {
		t.Fatal("a closed mux still sends")
	}
}

func TestGarbledFrames(t *testing.T) {
	a, b := pair(t, nil)
	conn, err := a.pool.Conn("b", Append)
	if err != nil {
		t.Fatal(err)
	}
	ok := flat(hello{cluster: "c1", from: "a/d1", to: b.self, group: 1}.encode())
	for name, frames := range map[string][][]byte{
		"empty hello":    {{}},
		"no hello":       {{byte(KindVote)}},
		"other version":  {{tagHello, 9}},
		"empty request":  {ok, {}},
		"unknown kind":   {ok, {0x3f}},
		"cut request":    {ok, {byte(KindVote), 1}},
		"many entries":   {ok, append(flat(encodeAppend(&raft.AppendEntriesRequest{}))[:7], 0xff, 0xff, 0xff, 0xff, 0x0f)},
		"chunk in calls": {ok, {tagChunk}},
	} {
		s, err := conn.NewStream(context.Background(), &callsMethod, "/"+serviceName+"/Calls")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			s.SendMsg(&Raw{f}) // the answer tells
		}
		var answer Raw
		if err := s.RecvMsg(&answer); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHeartbeatOvertakes: a raft main loop that stands still in one group does
// not hold up its settled heartbeats, nor another group.
func TestHeartbeatOvertakes(t *testing.T) {
	a, b := pair(t, nil)
	tr := b.mux.Group(1)
	tr.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(agree(rpc.Command)) })
	go func() { // the main loop answers once and then stands still
		rpc := <-tr.Consumer()
		rpc.Respond(agree(rpc.Command))
	}()
	if err := heartbeat(a, "b/d2", 5); err != nil {
		t.Fatal("first heartbeat of a term, by the main loop:", err)
	}
	p, err := a.mux.Group(1).AppendEntriesPipeline("", "b/d2")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range pipelineDepth {
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 5, Entries: []*raft.Log{{Data: make([]byte, maxAppendBytes)}}}, new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if err := heartbeat(a, "b/d2", 5); err != nil {
			t.Fatal("heartbeat behind entries:", err)
		}
	}
	two := b.mux.Group(2)
	go func() {
		rpc := <-two.Consumer()
		rpc.Respond(agree(rpc.Command))
	}()
	var resp raft.AppendEntriesResponse
	if err := a.mux.Group(2).AppendEntries("", "b/d2", &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1}, &resp); err != nil {
		t.Fatal("append of another group:", err)
	}
}

// TestFastPathOnlyWhenSettled: a heartbeat that could set the term goes to the
// main loop: of a new term, and after a candidacy.
func TestFastPathOnlyWhenSettled(t *testing.T) {
	a, b := pair(t, nil)
	answerAll(a, func(any) (any, error) { return &raft.RequestPreVoteResponse{}, nil })
	tr := b.mux.Group(1)
	slow := make(chan uint64, 10)
	answerAll(b, func(cmd any) (any, error) {
		slow <- cmd.(*raft.AppendEntriesRequest).Term
		return agree(cmd)
	})
	fast := make(chan uint64, 10)
	tr.SetHeartbeatHandler(func(rpc raft.RPC) {
		fast <- rpc.Command.(*raft.AppendEntriesRequest).Term
		rpc.Respond(agree(rpc.Command))
	})
	beat := func(term uint64, path chan uint64) {
		t.Helper()
		if err := heartbeat(a, "b/d2", term); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-path:
			if got != term {
				t.Fatalf("term %d arrived as %d", term, got)
			}
		default:
			t.Fatalf("heartbeat of term %d took the other path", term)
		}
	}
	beat(1, slow)
	beat(1, fast)
	beat(2, slow)
	beat(2, fast)
	if err := tr.RequestPreVote("", "a/d1", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{}); err != nil {
		t.Fatal(err)
	}
	beat(2, slow)
	beat(2, fast)
}

func TestPipelineBreak(t *testing.T) {
	for name, breakIt := range map[string]func(a, b *member){
		"peer dies":        func(a, b *member) { b.srv.Stop() },
		"connection lost":  func(a, b *member) { a.pool.Forget("b") },
		"transport closed": func(a, b *member) { a.mux.Group(1).Close() },
		"group closed":     func(a, b *member) { b.mux.Group(1).Close() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, nil)
			arrived := make(chan struct{}, pipelineDepth)
			tr := b.mux.Group(1)
			go func() {
				for {
					select {
					case <-tr.Consumer(): // never answered
						arrived <- struct{}{}
					case <-tr.ctx.Done():
						return
					}
				}
			}()
			p, err := a.mux.Group(1).AppendEntriesPipeline("", "b/d2")
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var sent []raft.AppendFuture
			for range pipelineDepth {
				f, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1}, new(raft.AppendEntriesResponse))
				if err != nil {
					t.Fatal(err)
				}
				sent = append(sent, f)
			}
			<-arrived
			breakIt(a, b)
			for _, want := range sent {
				got := <-p.Consumer()
				if got != want || got.Error() == nil || got.Response().Success {
					t.Fatalf("got %+v, error %v", got, got.Error())
				}
			}
			if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1}, new(raft.AppendEntriesResponse)); err == nil {
				t.Fatal("a broken pipeline takes another request")
			}
		})
	}
}

// TestIdleStreamsSurviveReconnect: calls do not fail because the streams that
// were kept have died with an earlier connection.
func TestIdleStreamsSurviveReconnect(t *testing.T) {
	a, b := pair(t, nil)
	answerAll(b, agree)
	for range 3 {
		if err := heartbeat(a, "b/d2", 1); err != nil {
			t.Fatal(err)
		}
		a.pool.Forget("b")
	}
}

// TestResolveChanges: a connection that works is replaced when the address book
// names another address.
func TestResolveChanges(t *testing.T) {
	bk := &book{addrs: make(map[string]string)}
	a := startMember(t, bk, nil, "a", "d1", clusterOptions{})
	b1 := startMember(t, bk, nil, "b", "d2", clusterOptions{})
	one, err := a.pool.Conn("b", Data)
	if err != nil {
		t.Fatal(err)
	}
	answerAll(b1, agree)
	if err := heartbeat(a, "b/d2", 1); err != nil {
		t.Fatal(err)
	}
	b2 := startMember(t, bk, nil, "b", "d3", clusterOptions{})
	answerAll(b2, agree)
	if err := heartbeat(a, "b/d3", 1); err != nil {
		t.Fatal(err)
	}
	one.Connect()
	if two, err := a.pool.Conn("b", Data); err != nil || two != one {
		t.Fatalf("a connection that was never dialled is replaced: %v", err)
	}
	if _, err := a.pool.Conn("nobody", Data); err == nil {
		t.Fatal("an unknown node has a connection")
	}
}

func TestCodec(t *testing.T) {
	for _, m := range []proto.Message{
		&shoalpb.HelloRequest{ClusterId: "c", Promise: &shoalpb.Promise{Members: []string{"a/1"}}},
		&shoalpb.AppendRequest{Group: 3, Batch: make([]byte, 100_000)}, // pooled
		&emptypb.Empty{},
	} {
		b, err := Codec.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := m.ProtoReflect().New().Interface()
		if err := Codec.Unmarshal(b, got); err != nil || !proto.Equal(got, m) {
			t.Errorf("%T: got %v, %v", m, got, err)
		}
	}
	if _, err := Codec.Marshal("text"); err == nil {
		t.Error("a string is encoded")
	}
	if err := Codec.Unmarshal(nil, new(string)); err == nil {
		t.Error("a string is decoded")
	}
}

// A retired group answers what raft has taken and heartbeats, and refuses the
// rest, also what waits for raft already.
func TestRetire(t *testing.T) {
	a, b := pair(t, nil)
	tr := b.mux.Group(1)
	beat := func(rpc raft.RPC) { rpc.Respond(agree(rpc.Command)) }
	tr.SetHeartbeatHandler(beat)
	send := func(index uint64) <-chan error {
		answer := make(chan error, 1)
		go func() {
			req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: index, PrevLogTerm: 1}
			answer <- a.mux.Group(1).AppendEntries("", "b/d2", req, new(raft.AppendEntriesResponse))
		}()
		return answer
	}
	first := send(1)
	taken := <-tr.Consumer()
	second := send(2)
	tr.Retire()
	tr.Retire()
	if err := <-second; err == nil || !strings.Contains(err.Error(), errNotOpen.Error()) {
		t.Fatalf("waiting for raft: %v", err)
	}
	taken.Respond(agree(taken.Command))
	if err := <-first; err != nil {
		t.Fatalf("taken by raft: %v", err)
	}
	if err := heartbeat(a, "b/d2", 1); err != nil { // of a term that is settled
		t.Fatal(err)
	}
	if err := <-send(3); err == nil {
		t.Fatal("taken after Retire")
	}
	tr.Close()
	answerAll(b, agree)
	if err := <-send(4); err != nil {
		t.Fatalf("opened anew: %v", err)
	}
}
