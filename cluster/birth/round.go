package birth

import (
	"context"
	"fmt"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// seen is the state that a round starts from; what the round finds counts only
// while it stands.
type seen struct {
	promise           promise
	version, voidTold int
}

// round looks at the state, asks others, and does at most one thing.
func (b *Birth) round(ctx context.Context) (r Result, done bool, err error) {
	b.mu.Lock()
	s := seen{parsePromise(slices.Clone(b.c.Disk.Promise())), b.version, b.voidTold}
	cluster := b.c.Disk.ClusterID()
	err = b.failed
	b.mu.Unlock()
	switch {
	case err != nil:
		return Result{}, false, err
	case s.promise.members != nil && !slices.Contains(s.promise.members, b.c.Self):
		return Result{}, false, fmt.Errorf("disk of %s holds a promise without it, %q: was it copied?", b.c.Self, s.promise.members)
	case cluster != "":
		return b.result(cluster, s.promise), true, nil
	case s.promise.members == nil:
		err = b.freeRound(ctx, s)
	case s.promise.void:
		err = b.voidRound(ctx, s)
	default:
		err = b.promisedRound(ctx, s)
	}
	if err != nil {
		return Result{}, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if cluster = b.c.Disk.ClusterID(); cluster == "" {
		return Result{}, false, nil
	}
	return b.result(cluster, parsePromise(b.c.Disk.Promise())), true, nil
}

// result is that of a born disk: it has kept its promise if it is a founder.
func (b *Birth) result(cluster string, p promise) Result {
	r := Result{ClusterID: cluster, Shards: b.shards}
	if p.members != nil && !p.void {
		r.Founder, r.Members = true, slices.Clone(p.members)
	}
	return r
}

// change stores a promise if the state is still s, and reports whether it is.
func (b *Birth) change(s seen, p promise) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version != s.version {
		return false, nil
	}
	return true, b.store(p)
}

// born makes this node a part of the cluster if the state is still s. A void
// disk of the set must also not have told anyone since that it is void, and
// takes its promise up again, both in one step as others see it.
func (b *Birth) born(s seen, cluster string, shards int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.version != s.version || s.promise.void && b.voidTold != s.voidTold {
		return nil
	}
	if s.promise.void {
		if err := b.store(promise{members: s.promise.members}); err != nil {
			return err
		}
	}
	b.version++
	if err := b.c.Disk.SetBirth(cluster, shards); err != nil {
		b.failed = fmt.Errorf("store birth: %w", err)
		return b.failed
	}
	b.shards = shards
	b.c.Log.Info("this node belongs to a cluster", "cluster", cluster, "founders", s.promise.members, "shards", shards)
	return nil
}

// hello asks a node, proposing members if they are not nil.
func (b *Birth) hello(ctx context.Context, node string, members []string) (*shoalpb.HelloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	req := &shoalpb.HelloRequest{}
	if members != nil {
		req.Promise = &shoalpb.Promise{Members: members}
	}
	reply, err := b.c.Peers.Hello(ctx, node, req)
	if err == nil && reply.Node != node {
		return nil, fmt.Errorf("node %s answers for node %s", reply.Node, node)
	}
	return reply, err
}

// wait logs what this node waits for when that changes.
func (b *Birth) wait(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.mu.Lock()
	news := text != b.waiting
	b.waiting = text
	b.mu.Unlock()
	if news {
		b.c.Log.Info("waiting for birth", "for", text)
	}
}

// complain is wait for what an operator must mend.
func (b *Birth) complain(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.mu.Lock()
	news := text != b.waiting
	b.waiting = text
	b.mu.Unlock()
	if news {
		b.c.Log.Error("birth is not possible", "reason", text)
	}
}
