package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalmq/shoal/cluster/sender"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Who leads a group, as far as this node knows. The raft instance of a replica
// knows best, as long as it hears of a leader. Else the node guesses: a guess
// stands until a stream finds that node silent, gone or not leading, and all
// streams of this node that go to it leave it then.

// guesses are the nodes that this node takes for the leaders of groups.
type guesses struct {
	mu    sync.Mutex
	nodes map[uint32]string
	moved *broadcast
}

func newGuesses() *guesses { return &guesses{nodes: make(map[uint32]string), moved: newBroadcast()} }

func (g *guesses) set(group uint32, node string) {
	g.mu.Lock()
	moved := g.nodes[group] != node
	g.nodes[group] = node
	g.mu.Unlock()
	if moved {
		g.moved.broadcast()
	}
}

// among is the present guess if it is one of nodes, else the first of them.
func (g *guesses) among(group uint32, nodes []string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.nodes[group]; slices.Contains(nodes, now) || len(nodes) == 0 {
		return now
	}
	g.nodes[group] = nodes[0]
	return nodes[0]
}

// leaderOf is the node that leads group as far as this node knows, "" if
// unknown. It may be this node, before it is ready to lead.
func (n *Node) leaderOf(group uint32) string {
	if now := n.hint(group); now != "" {
		return now
	}
	return n.guesses.among(group, n.mayLead(group))
}

// hint is the leader of a group that this node's own replica hears of, "" for
// none: this node names it to those who ask in vain.
func (n *Node) hint(group uint32) string {
	if g := n.group(group); g != nil {
		return g.leader()
	}
	return ""
}

// mayLead are the other nodes that may lead a group.
func (n *Node) mayLead(group uint32) (nodes []string) {
	add := func(node string) {
		if node != n.config.NodeID && !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	if group == 0 {
		for _, m := range n.gossip.Members() {
			if m.ClusterID == n.clusterID() {
				add(m.Node)
			}
		}
	}
	n.readDirectory(func(d *directoryMachine) {
		for _, home := range d.Placed(group).Homes() {
			add(nodeOf(home))
		}
	})
	return nodes
}

// refuted tells that node does not lead group, or does not answer, so that the
// guess is another from now on: hint, the node that it names for the leader, or
// the next that may be. A guess that has changed meanwhile stays.
func (n *Node) refuted(group uint32, node, hint string) {
	nodes := n.mayLead(group)
	if len(nodes) == 0 || node != n.guesses.among(group, nodes) {
		return
	}
	next := hint
	if hint == node || !slices.Contains(nodes, hint) {
		next = nodes[(slices.Index(nodes, node)+1)%len(nodes)]
	}
	n.guesses.set(group, next)
}

// toLeader returns the client of the node that leads group, and a context for
// calls that ends when it is known that another does, linger later.
func (n *Node) toLeader(parent context.Context, group uint32, linger time.Duration) (node string, peer shoalpb.PeerClient, ctx context.Context, cancel context.CancelFunc, err error) {
	node = n.leaderOf(group)
	if node == "" || node == n.config.NodeID {
		return "", nil, nil, nil, errNoLeader
	}
	if peer, err = n.peer(node); err != nil {
		return node, nil, nil, nil, err
	}
	if n.hint(group) == node { // and stays the guess if the replica hears of none
		n.guesses.set(group, node)
	}
	ctx, cancel = n.whileLeads(parent, group, node, linger)
	return node, peer, ctx, cancel, nil
}

var errNoLeader = errors.New("the group has no leader that this node knows of")

// whileLeads derives a context that ends when this node hears of a leader other
// than node, or takes another for it, or when node's process is fenced: what was
// sent to a silent leader is sent again to its successor. linger is for what a
// leader that is well may still have to say.
func (n *Node) whileLeads(parent context.Context, group uint32, node string, linger time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	process := n.processOf(node)
	fenced := n.isFenced(process) // and leads all the same
	go func() {
		defer cancel()
		for {
			var moved <-chan struct{}
			if g := n.group(group); g != nil {
				moved = g.leaderMoved.next()
			}
			guessed, fences := n.guesses.moved.next(), n.fences.next()
			if now := n.leaderOf(group); now != "" && now != node {
				pause(ctx, linger)
				return
			}
			if !fenced && n.isFenced(process) {
				return
			}
			select {
			case <-moved:
			case <-guessed:
			case <-fences:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// processOf is the latest process of a node that the own directory copy knows.
func (n *Node) processOf(node string) (p processID) {
	p.node = node
	n.readDirectory(func(d *directoryMachine) {
		if x, ok := d.Node(node); ok {
			p.boot = x.Info.Boot
		}
	})
	return p
}

// notLeading is the answer of a node that does not lead, which may name one that
// does.
type notLeading struct{ leader string }

func (e *notLeading) Error() string {
	if e.leader == "" {
		return errNotLeader.Error()
	}
	return errNotLeader.Error() + ", it names " + e.leader
}

func (e *notLeading) Unwrap() error { return errNotLeader }

// errAgain is why a pipe is left whose target leads, and wants what was sent to be
// sent again.
var errAgain = errors.New("not taken now")

// office is where a stream looks for the leader of a group.
type office struct {
	n     *Node
	group uint32
	node  string // dialled last, "" for this one
}

// left takes the reason why the stream has left the node that it had dialled.
func (o *office) left(err error) {
	if o.node == "" || errors.Is(err, errAgain) {
		return
	}
	var other *notLeading
	hint := ""
	if errors.As(err, &other) {
		hint = other.leader
	}
	o.n.refuted(o.group, o.node, hint)
}

// dialLeader opens a stream at the node that leads o's group.
func dialLeader[Req, Rep any](parent context.Context, o *office, linger time.Duration, open func(context.Context, shoalpb.PeerClient) (grpc.BidiStreamingClient[Req, Rep], error)) (*remotePipe[Req, Rep], error) {
	node, peer, ctx, cancel, err := o.n.toLeader(parent, o.group, linger)
	o.node = node
	if err != nil {
		return nil, err
	}
	stream, err := open(ctx, peer)
	if err != nil {
		cancel()
		return nil, err
	}
	return &remotePipe[Req, Rep]{stream, cancel}, nil
}

// remotePipe is a pipe to another node.
type remotePipe[Req, Rep any] struct {
	grpc.BidiStreamingClient[Req, Rep]
	cancel context.CancelFunc
}

// Close implements sender.Pipe.
func (p *remotePipe[Req, Rep]) Close() { p.cancel() }

// toGroup are the options of streams to groups' leaders.
var toGroup = sender.Options{Silence: silentTimeout, Retry: retryDelay, RetryMax: retryMax}

// toProcess are those of streams to processes, which are over when they are
// fenced: nobody can take their place before.
var toProcess = sender.Options{Retry: retryDelay, RetryMax: retryMax}
