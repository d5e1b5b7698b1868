package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestLogIsBoundedInBytes: what stays of the log behind a checkpoint is bounded in
// bytes, and what the log has makes one due.
func TestLogIsBoundedInBytes(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.node("n1")
	c.away("n1", "s", "t")
	var g *group
	for _, one := range n.allGroups() {
		if one.id == 1 {
			g = one
		}
	}
	const size = 500 << 10
	for range 3 {
		n.open(t, "publisher", true, 0).flood("t", trailingBytes/size/2, size)
	}
	g.logged.Store(checkpointLog)
	g.dirtySince.Store(1)
	if !g.checkpointDue(time.Unix(0, 2), 1<<40) {
		t.Fatal("no checkpoint is due")
	}
	n.open(t, "publisher", true, 0).publish("t", 1, "the last")
	if err := g.checkpoint(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log is short", func() error {
		first, _ := g.logs.FirstIndex()
		last, _ := g.logs.LastIndex()
		bytes := 0
		for i := first; i <= last; i++ {
			var l raft.Log
			if err := g.logs.GetLog(i, &l); err != nil {
				return err
			}
			bytes += len(l.Data)
		}
		if bytes > trailingBytes || last-first < 10 {
			return fmt.Errorf("%d entries of %d bytes", last-first+1, bytes)
		}
		return nil
	})
}
