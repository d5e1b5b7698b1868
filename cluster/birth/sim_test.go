package birth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
	"pgregory.net/rapid"
)

var errCrashed = errors.New("process is dead")

// simDisk is a data directory. It outlives processes.
type simDisk struct {
	name    string // "node/disk"
	nonce   string
	promise []string
	cluster string
	shards  int
}

// simNode is a node: at most one process, and one disk at a time.
type simNode struct {
	name string
	disk *simDisk
	proc *simProc // nil while down
}

// simProc is one process. Whatever it does after its death has no effect.
type simProc struct {
	w    *world
	node *simNode
	disk *simDisk
	b    *Birth
	dead bool
	busy bool // in a round
}

func (p *simProc) Promise() []string { return p.disk.promise }
func (p *simProc) ClusterID() string { return p.disk.cluster }

func (p *simProc) SetPromise(members []string) error {
	return p.fsync(func() { p.disk.promise = slices.Clone(members) })
}

func (p *simProc) SetBirth(id string, shards int) error {
	return p.fsync(func() { p.disk.cluster, p.disk.shards = id, shards })
}

// fsync may die before or after the write.
func (p *simProc) fsync(write func()) error {
	if p.dead {
		return errCrashed
	}
	when := 9
	if p.w.chaotic() {
		when = p.w.draw(0, 9, "crash at fsync")
	}
	if when == 0 {
		p.w.crash(p.node)
		return errCrashed
	}
	write()
	if when == 1 {
		p.w.crash(p.node)
		return errCrashed
	}
	return nil
}

func (p *simProc) Members() (peers []Peer) {
	for i, n := range p.w.nodes {
		if n.proc != nil && p.w.sees(p.node, i) {
			node, disk := split(n.disk.name)
			peers = append(peers, Peer{node, disk, n.disk.cluster, p.w.expect, 6})
		}
	}
	return peers
}

// Hello lets other things happen before and after the other side answers.
func (p *simProc) Hello(_ context.Context, node string, req *shoalpb.HelloRequest) (*shoalpb.HelloReply, error) {
	p.w.chaos()
	i := slices.IndexFunc(p.w.nodes, func(n *simNode) bool { return n.name == node })
	q := p.w.nodes[i].proc
	if p.dead || q == nil || p.w.lost() {
		return nil, errors.New("no answer")
	}
	reply := q.b.Answer(req)
	if q.dead {
		return nil, errors.New("no answer")
	}
	p.w.chaos()
	if p.dead || p.w.lost() {
		return nil, errors.New("no answer")
	}
	return reply, nil
}

type world struct {
	t       *rapid.T
	nodes   []*simNode
	expect  int
	blind   [][]bool
	wipes   bool
	healed  bool
	depth   int
	disks   []*simDisk // all that ever were
	wiped   map[*simDisk]bool
	loseOne int // of so many messages; 0: none
}

func (w *world) draw(low, high int, label string) int {
	return rapid.IntRange(low, high).Draw(w.t, label)
}

func (w *world) chaotic() bool { return !w.healed }
func (w *world) lost() bool {
	return w.chaotic() && w.loseOne > 0 && w.draw(1, w.loseOne, "lost") == 1
}

func (w *world) sees(n *simNode, other int) bool {
	return w.healed || !w.blind[slices.Index(w.nodes, n)][other]
}

func (w *world) newDisk(n *simNode) {
	n.disk = &simDisk{name: fmt.Sprintf("%s/%d", n.name, len(w.disks)), nonce: fmt.Sprint("nonce", len(w.disks)), shards: 6}
	w.disks = append(w.disks, n.disk)
}

func (w *world) start(n *simNode) {
	p := &simProc{w: w, node: n, disk: n.disk}
	n.proc = p
	p.b = New(Config{
		Self: n.disk.name, Nonce: n.disk.nonce, Expect: w.expect, Shards: n.disk.shards, Joining: true,
		Disk: p, Peers: p, Log: slog.New(slog.DiscardHandler),
	})
}

func (w *world) crash(n *simNode) {
	if n.proc != nil {
		n.proc.dead = true
		n.proc = nil
	}
}

func (w *world) step(n *simNode) {
	p := n.proc
	if p == nil || p.busy {
		return
	}
	p.busy = true
	defer func() { p.busy = false }()
	r, done, err := p.b.round(context.Background())
	if p.dead {
		return
	}
	if err != nil {
		w.t.Fatalf("%s: %v", n.disk.name, err)
	}
	if done && (r.ClusterID != n.disk.cluster || r.Founder != slices.Contains(r.Members, n.disk.name)) {
		w.t.Fatalf("%s: result %+v", n.disk.name, r)
	}
}

// chaos is up to one thing that happens at this moment, often nothing.
func (w *world) chaos() {
	if w.healed || w.depth >= 4 {
		return
	}
	w.depth++
	defer func() { w.depth-- }()
	n := w.nodes[w.draw(0, len(w.nodes)-1, "node")]
	switch w.draw(0, 11, "what") {
	case 0, 1, 2, 3:
		w.step(n)
	case 4:
		w.crash(n)
	case 5, 6:
		if n.proc == nil {
			w.start(n)
		}
	case 7:
		if n.proc == nil && w.wipes && !w.inRound(n.disk) {
			w.wiped[n.disk] = true
			w.newDisk(n)
			w.start(n)
		}
	case 8:
		i, j := w.draw(0, len(w.nodes)-1, "who"), w.draw(0, len(w.nodes)-1, "sees")
		w.blind[i][j] = !w.blind[i][j]
	}
	w.check()
}

// inRound: the package assumes that no born disk is wiped in the middle of a
// round.
func (w *world) inRound(d *simDisk) bool {
	return d.cluster != "" && slices.ContainsFunc(w.nodes, func(n *simNode) bool { return n.proc != nil && n.proc.busy })
}

// quorate returns the cluster ids that a majority of their founders' disks has.
func (w *world) quorate() (ids []string) {
	alive := make(map[string]int)
	for _, d := range w.disks {
		if d.cluster != "" && !w.wiped[d] && slices.Contains(d.promise, d.name) && d.promise[0] != voidMark {
			alive[d.cluster]++
		}
	}
	for id, n := range alive {
		if n > w.expect/2 {
			ids = append(ids, id)
		}
	}
	return ids
}

func (w *world) check() {
	if ids := w.quorate(); len(ids) > 1 {
		w.t.Fatalf("two clusters: %q\n%s", ids, w)
	}
}

func (w *world) String() (s string) {
	for _, d := range w.disks {
		s += fmt.Sprintf("%s wiped=%v cluster=%q promise=%q\n", d.name, w.wiped[d], d.cluster, d.promise)
	}
	return s
}

// lostMajority: a set that some disk was born with has lost most of its disks.
func (w *world) lostMajority() bool {
	for _, d := range w.disks {
		if d.cluster == "" || len(d.promise) != w.expect {
			continue
		}
		gone := 0
		for _, e := range w.disks {
			if w.wiped[e] && slices.Contains(d.promise, e.name) {
				gone++
			}
		}
		if gone > (w.expect-1)/2 {
			return true
		}
	}
	return false
}

// TestNeverTwoEventuallyOne: crashes at every step, restarts, wiped disks, lost
// messages and partial views, in the middle of each other's rounds; then all
// stay up.
func TestNeverTwoEventuallyOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([][2]int{{3, 3}, {4, 3}, {5, 3}, {5, 5}, {2, 2}, {5, 4}}).Draw(t, "nodes, expect")
		n, expect := size[0], size[1]
		w := &world{t: t, expect: expect, wiped: make(map[*simDisk]bool), loseOne: rapid.SampledFrom([]int{0, 3, 10}).Draw(t, "lose")}
		// With more nodes a wiped disk makes room for a second set, see doc.go.
		w.wipes = n < expect+expect/2+1
		for i := range n {
			node := &simNode{name: string(rune('A' + i))}
			w.nodes = append(w.nodes, node)
			w.blind = append(w.blind, make([]bool, n))
			w.newDisk(node)
			w.start(node)
		}
		for range rapid.IntRange(0, 200).Draw(t, "events") {
			w.chaos()
		}
		w.healed = true
		for range 40 {
			for _, node := range w.nodes {
				if node.proc == nil {
					w.start(node)
				}
				w.step(node)
				w.check()
			}
		}
		ids := make(map[string]bool)
		for _, node := range w.nodes {
			ids[node.disk.cluster] = true
		}
		if w.lostMajority() {
			return
		}
		if len(ids) != 1 || ids[""] || len(w.quorate()) != 1 {
			t.Fatalf("not one cluster:\n%s", w)
		}
	})
}
