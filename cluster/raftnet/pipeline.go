package raftnet

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline implements raft.Transport.
func (t *Transport) AppendEntriesPipeline(_ raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	s := t.newStream(to, Append)
	timer := time.AfterFunc(appendTimeout, s.cancel)
	err := s.open(&callsMethod)
	if !timer.Stop() && err == nil {
		err = s.ctx.Err()
	}
	if err != nil {
		s.cancel()
		return nil, err
	}
	p := &pipeline{
		s:        s,
		slots:    make(chan struct{}, pipelineDepth),
		inFlight: make(chan *future, pipelineDepth),
		done:     make(chan raft.AppendFuture, pipelineDepth),
		closed:   make(chan struct{}),
	}
	go p.run()
	return p, nil
}

// pipeline sends AppendEntries without waiting for the answers to earlier ones.
// When it breaks every unanswered request is delivered to Consumer as failed,
// with an empty response: raft looks at nothing else to notice the break.
type pipeline struct {
	s *stream
	// slots holds a token for each unanswered request.
	slots chan struct{}
	// inFlight holds the unanswered requests in order; it has room for all.
	inFlight chan *future
	done     chan raft.AppendFuture
	closed   chan struct{} // closed by Close

	mu     sync.Mutex
	broken bool
	ended  bool
}

// AppendEntries implements raft.AppendPipeline. It waits while pipelineDepth
// requests are unanswered. It may cut args.Entries (bound).
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	bound(args)
	select {
	case p.slots <- struct{}{}:
	case <-p.s.ctx.Done():
		return nil, raft.ErrPipelineShutdown
	}
	f := &future{args: args, resp: resp, start: time.Now(), sent: Now(), answered: make(chan struct{})}
	req := encodeAppend(args) // before raft can see f and change its entries
	if !p.push(f) {
		return nil, raft.ErrPipelineShutdown
	}
	err := p.s.pass(KindAppend, false)
	if err == nil {
		// Not stream.send: when the peer has ended the stream, why is for run to
		// receive, which may be receiving at this moment.
		err = p.s.SendMsg(req)
	}
	if err != nil {
		p.s.cancel()
		return nil, err
	}
	return f, nil
}

// push notes f as in flight unless the pipeline is broken. What is pushed is
// delivered, either answered or failed.
func (p *pipeline) push(f *future) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken {
		return false
	}
	p.inFlight <- f
	return true
}

// run delivers answers until the stream breaks or is closed.
func (p *pipeline) run() {
	timer := time.AfterFunc(appendTimeout, p.s.cancel)
	timer.Stop()
	for {
		var f *future
		select {
		case f = <-p.inFlight:
		case <-p.s.ctx.Done():
			p.fail(p.s.ctx.Err())
			return
		}
		timer.Reset(appendTimeout)
		err := p.s.receive(KindAppend, f.resp)
		timer.Stop()
		if err == nil {
			p.s.t.answers.record(p.s.to, f.args.Term, f.resp.Term, f.sent)
			if f.resp.Success {
				p.s.t.answers.match(p.s.to, f.args.Term, f.args.PrevLogEntry+uint64(len(f.args.Entries)), f.sent)
				p.s.t.mux.ends.had(p.s.t.group, string(p.s.to), f.args, f.sent)
			}
		}
		<-p.slots
		p.deliver(f, err)
		if err != nil {
			p.fail(err)
			return
		}
	}
}

// fail breaks the pipeline and delivers all that is in flight as failed.
func (p *pipeline) fail(err error) {
	p.s.cancel()
	p.mu.Lock()
	p.broken = true
	p.mu.Unlock()
	for {
		select {
		case f := <-p.inFlight:
			p.deliver(f, err)
		default:
			return
		}
	}
}

func (p *pipeline) deliver(f *future, err error) {
	if err != nil {
		*f.resp = raft.AppendEntriesResponse{} // of an answer that parsed in part
	}
	f.err = err
	close(f.answered)
	select {
	case p.done <- f:
	case <-p.closed:
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		close(p.closed)
		p.s.cancel()
	}
	return nil
}

// future is one AppendEntries of a pipeline.
type future struct {
	args     *raft.AppendEntriesRequest
	resp     *raft.AppendEntriesResponse
	start    time.Time
	sent     time.Duration
	err      error         // set before answered is closed
	answered chan struct{} // closed
}

// Error implements raft.Future.
func (f *future) Error() error {
	<-f.answered
	return f.err
}

// Start implements raft.AppendFuture.
func (f *future) Start() time.Time { return f.start }

// Request implements raft.AppendFuture.
func (f *future) Request() *raft.AppendEntriesRequest { return f.args }

// Response implements raft.AppendFuture.
func (f *future) Response() *raft.AppendEntriesResponse { return f.resp }
