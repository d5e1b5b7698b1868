package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalmq/shoal/cluster/lease"
)

// TestScenarioRandomMembership is TestScenarioRandom with disks that are lost and
// nodes that are drained, removed and come back as new ones. No disk is taken
// away that the others cannot do without.
func TestScenarioRandomMembership(t *testing.T) {
	t.Parallel()
	seed := fromEnv(t, "SHOAL_TEST_SEED", rand.Uint64N(1<<32))
	span := time.Duration(fromEnv(t, "SHOAL_TEST_SECONDS", 15)) * time.Second
	t.Logf("SHOAL_TEST_SEED=%d", seed)
	r := newRun(t, 5, 3, seed)
	r.changes(t.Context(), span)
	eventually(t, "all are members", r.allMembers)
	r.finish()
	t.Log(r.h.summary())
}

// changes does one thing after the other to nodes and their membership.
func (r *run) changes(ctx context.Context, span time.Duration) {
	rng := r.rng(1001)
	for end := time.Now().Add(span); time.Now().Before(end) && ctx.Err() == nil; {
		pause(ctx, time.Duration(rng.IntN(1000))*time.Millisecond)
		r.supervise()
		name := r.anyNode(rng)
		long := time.Duration(rng.IntN(4000)) * time.Millisecond
		switch k := rng.IntN(9); {
		case k < 2:
			r.kill(name)
			pause(ctx, long/2)
			r.c.start(name)
		case k < 4:
			r.lose(name, func() {})
		case k == 4:
			r.operate("drain", name)
			pause(ctx, long)
			if rng.IntN(2) == 0 {
				r.operate("undrain", name)
			}
		case k < 7:
			r.lose(name, func() {
				r.operate("remove", name)
				pause(ctx, long)
				r.operate("undrain", name) // else it could be removed while it serves
			})
		case k == 7:
			r.disturb(name, func() { r.c.net.isolate(name); pause(ctx, long); r.c.net.rejoin(name) })
		default:
			r.operate("rebalance", "")
		}
	}
	r.supervise()
}

// supervise starts again what has ended by itself.
func (r *run) supervise() {
	for _, n := range r.c.up() {
		if err := n.Live(); err != nil {
			r.t.Logf("%s has ended: %v", n.config.NodeID, err)
			r.kill(n.config.NodeID)
			if strings.Contains(err.Error(), "was removed") || strings.Contains(err.Error(), "was replaced") {
				r.wipe(n.config.NodeID)
			}
			r.c.start(n.config.NodeID)
		}
	}
}

// operate carries out a command at some node; it may fail.
func (r *run) operate(command, node string) error {
	var err error
	for _, n := range r.c.up() {
		if n.config.NodeID == node {
			continue
		}
		text := ""
		ctx, cancel := context.WithTimeout(r.failed, lease.Duration)
		text, err = n.Operate(ctx, command, node, true)
		cancel()
		if err == nil {
			r.t.Logf("%6.2fs %s %s: %s", sinceStart().Seconds(), command, node, text)
			return nil
		}
	}
	r.t.Logf("%6.2fs %s %s: %v", sinceStart().Seconds(), command, node, err)
	return err
}

// lose kills a node and takes its disk away, if the others can do without it.
func (r *run) lose(name string, meanwhile func()) {
	r.kill(name)
	if r.operate("", name) == nil {
		meanwhile()
		r.wipe(name)
	}
	r.c.start(name)
}

func (r *run) wipe(name string) {
	if err := os.RemoveAll(filepath.Join(r.c.dir, name)); err != nil {
		r.t.Error(fmt.Errorf("lose a disk: %w", err))
	}
}

// allMembers takes back what was asked of nodes and starts those that were told
// to go, until all serve.
func (r *run) allMembers() error {
	r.supervise()
	for _, n := range r.c.up() {
		if err := n.Ready(); err != nil {
			return err
		}
	}
	for _, n := range r.c.up()[0].Status().Nodes {
		if n.Drained || n.Leaving {
			return errors.Join(fmt.Errorf("%s is drained", n.Node), r.operate("undrain", n.Node))
		}
	}
	if n := len(r.c.up()[0].Status().Nodes); n != len(r.c.names) {
		return fmt.Errorf("%d nodes are members", n)
	}
	return nil
}
