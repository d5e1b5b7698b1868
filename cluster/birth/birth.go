package birth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Disk is the durable state of this node. What a method has returned without
// error is fsynced. Calls are serialized by Birth.
type Disk interface {
	// Promise returns what SetPromise stored last, nil for nothing.
	Promise() []string
	// SetPromise stores a promise; nil removes it. Strings are opaque.
	SetPromise(members []string) error
	// ClusterID returns the cluster that the disk belongs to, or "".
	ClusterID() string
	// SetBirth makes the disk belong to a cluster, for ever; it keeps the promise.
	SetBirth(clusterID string, shards int) error
}

// Peer is another node as gossip sees it.
type Peer struct {
	Node, Disk, ClusterID string
	Expect, Shards        int
}

// Peers reaches the other nodes.
type Peers interface {
	// Members returns the live nodes that gossip knows; this node may be among
	// them. It must not wait for a Birth.
	Members() []Peer
	// Hello asks a node.
	Hello(ctx context.Context, node string, req *shoalpb.HelloRequest) (*shoalpb.HelloReply, error)
}

// Config is what a Birth needs.
type Config struct {
	// Self is this server, "node/disk", Nonce the secret of its data directory.
	Self, Nonce string
	// Expect is how many nodes found a cluster, Shards how many shards it gets
	// (the disk's own number if it is born already).
	Expect, Shards int
	// Joining: others were named to join. With Expect 1 this node then founds
	// nothing.
	Joining bool
	Disk    Disk
	Peers   Peers
	Log     *slog.Logger
	// Wake, if not nil, tells that Members has changed.
	Wake <-chan struct{}
}

// Result says which cluster this node belongs to.
type Result struct {
	ClusterID string
	// Founder: this server is one of Members, the founding set ("node/disk",
	// sorted), and bootstraps raft with it unless it has done so. Others ask
	// to be added.
	Founder bool
	Members []string
	Shards  int
}

// Birth is one node's part in a birth. All methods are safe for concurrent use,
// Run for one call at a time.
type Birth struct {
	c          Config
	node, disk string
	changed    chan struct{} // Answer has changed the state

	mu     sync.Mutex
	shards int // of the cluster, once born
	// version counts changes of the state; voidTold the answers that said void.
	version, voidTold int
	failed            error  // of the disk
	waiting           string // logged last
}

// New returns the Birth of a node, which can Answer at once.
func New(c Config) *Birth {
	b := &Birth{c: c, shards: c.Shards, changed: make(chan struct{}, 1)}
	b.node, b.disk = split(c.Self)
	return b
}

// Run returns when this node belongs to a cluster. It fails when ctx is done,
// on the first error of the disk, and when the disk holds the promise of
// another one.
func (b *Birth) Run(ctx context.Context) (Result, error) {
	if b.c.Expect < 1 || b.c.Expect > maxMembers {
		return Result{}, fmt.Errorf("expect %d nodes at birth: must be 1 to %d", b.c.Expect, maxMembers)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		r, done, err := b.round(ctx)
		if done || err != nil {
			return r, err
		}
		timer.Reset(pause)
		select {
		case <-b.c.Wake:
		case <-b.changed:
		case <-timer.C:
		case <-ctx.Done():
			return Result{}, fmt.Errorf("wait for birth: %w", ctx.Err())
		}
	}
}

// Answer is this node's side of a Hello: who it is, and, if the request
// proposes a promise that it can make, that it is fsynced. Boot and status are
// the caller's to fill in.
func (b *Birth) Answer(req *shoalpb.HelloRequest) *shoalpb.HelloReply {
	b.mu.Lock()
	defer b.mu.Unlock()
	reply := &shoalpb.HelloReply{Node: b.node, Disk: b.disk, Nonce: b.c.Nonce, Expect: uint32(b.c.Expect)}
	cluster := b.c.Disk.ClusterID()
	if req.ClusterId != "" && cluster != "" && req.ClusterId != cluster {
		reply.Error = fmt.Sprintf("%s is of another cluster, %s", b.c.Self, cluster)
	} else if p := req.Promise; p != nil && !p.Void && cluster == "" {
		if err := b.promise(p.Members); err != nil {
			reply.Error = err.Error()
		} else {
			reply.Promised = true
		}
	}
	if p := parsePromise(b.c.Disk.Promise()); p.members != nil {
		reply.Promise = &shoalpb.Promise{Members: p.members, Void: p.void}
		if p.void {
			b.voidTold++
		}
	}
	reply.ClusterId, reply.Shards = cluster, uint32(b.shards)
	return reply
}

// Settle ends the memory of the birth, once the caller knows of every founder that
// it is born, or that its disk will never be: from then on this node's word is
// enough for others to join, also when most founders have left the cluster.
func (b *Birth) Settle() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c.Disk.ClusterID() == "" || b.c.Disk.Promise() == nil || b.failed != nil {
		return b.failed
	}
	b.version++
	if err := b.c.Disk.SetPromise(nil); err != nil {
		b.failed = fmt.Errorf("forget promise: %w", err)
		return b.failed
	}
	b.c.Log.Info("all founders are known to the cluster: the promise of birth has done its work")
	return nil
}

// promise promises this free disk to members; mu is held.
func (b *Birth) promise(members []string) error {
	p := parsePromise(b.c.Disk.Promise())
	switch {
	case p.to(members) && !p.void:
		return nil
	case p.members != nil:
		return fmt.Errorf("%s is bound to another set, %q (void: %v)", b.c.Self, p.members, p.void)
	case b.c.Expect == 1:
		return errors.New(b.c.Self + " does not take part in a birth: it expects 1 node")
	}
	if err := checkSet(members, b.c.Expect, b.c.Self); err != nil {
		return err
	}
	for _, m := range b.c.Peers.Members() {
		if m.ClusterID != "" && m.Node != b.node {
			return fmt.Errorf("%s sees node %s of cluster %s", b.c.Self, m.Node, m.ClusterID)
		}
	}
	if err := b.store(promise{members: slices.Clone(members)}); err != nil {
		return err
	}
	select {
	case b.changed <- struct{}{}:
	default:
	}
	return nil
}

// store writes a promise; mu is held. After an error the disk's state is
// unknown, and Run ends.
func (b *Birth) store(p promise) error {
	if b.failed != nil {
		return b.failed
	}
	b.version++
	if err := b.c.Disk.SetPromise(p.stored()); err != nil {
		b.failed = fmt.Errorf("store promise: %w", err)
		return b.failed
	}
	switch {
	case p.members == nil:
		b.c.Log.Info("promise of birth is given up")
	case p.void:
		b.c.Log.Warn("promise of birth is void", "members", p.members)
	default:
		b.c.Log.Info("promised birth", "members", p.members)
	}
	return nil
}
