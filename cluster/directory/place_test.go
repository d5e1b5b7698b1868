package directory

import (
	"fmt"
	"hash/fnv"
	"slices"
	"testing"

	shoalpb "github.com/shoalmq/shoal/proto"
)

func members(n int) (all []*shoalpb.NodeDisk) {
	for i := range n {
		all = append(all, &shoalpb.NodeDisk{Node: fmt.Sprintf("node-%d", i), Disk: fmt.Sprintf("disk%d", i)})
	}
	return all
}

// TestSlotVectors: slots of keys are part of the disk and wire formats. If this
// fails, change the code, not the numbers.
func TestSlotVectors(t *testing.T) {
	for key, want := range map[string]int{
		"": 961, "a": 192, "client-1": 218, "sensors/7/temperature": 45, "Ω": 623,
	} {
		if got := Slot(key); got != want {
			t.Errorf("Slot(%q) = %d, want %d", key, got, want)
		}
	}
}

// TestSlotIsFNV1a compares with another implementation, and looks how even it is.
func TestSlotIsFNV1a(t *testing.T) {
	count := make([]int, Slots)
	for i := range 100 * Slots {
		key := fmt.Sprintf("device-%d", i)
		h := fnv.New64a()
		h.Write([]byte(key))
		if want := int((h.Sum64() ^ h.Sum64()>>32) % 1024); Slot(key) != want {
			t.Fatalf("Slot(%q) = %d, want %d", key, Slot(key), want)
		}
		count[Slot(key)]++
	}
	if low, high := slices.Min(count), slices.Max(count); low < 60 || high > 140 {
		t.Errorf("slots have %d to %d of 100 keys", low, high)
	}
}

// TestPlaceIsBalanced: with as many members as replicas everybody has everything;
// with more, replicas are spread, and the preferred leaders evenly.
func TestPlaceIsBalanced(t *testing.T) {
	for _, c := range []struct{ shards, nodes, low, high int }{
		{6, 1, 6, 6}, {6, 2, 6, 6}, {6, 3, 6, 6}, {6, 5, 1, 5}, {48, 5, 22, 36}, {128, 10, 27, 51},
	} {
		replicas, leads := map[string]int{}, map[string]int{}
		for _, homes := range Place(uint32(c.shards), Replicas, members(c.nodes)) {
			leads[homes[0]]++
			for i, home := range homes {
				replicas[home]++
				if slices.Contains(homes[:i], home) {
					t.Fatalf("%v has two replicas on one node", homes)
				}
			}
			if len(homes) != min(Replicas, c.nodes) {
				t.Fatalf("%v: %d replicas", homes, len(homes))
			}
		}
		for _, m := range members(c.nodes) {
			id := ServerID(m)
			if n := replicas[id]; n < c.low || n > c.high {
				t.Errorf("%d shards on %d nodes: %s has %d replicas", c.shards, c.nodes, id, n)
			}
			if even := c.shards / c.nodes; leads[id] < even-1 || leads[id] > even+2 {
				t.Errorf("%d shards on %d nodes: %s is preferred %d times", c.shards, c.nodes, id, leads[id])
			}
		}
	}
}

// TestPlaceMovesLittle: one node more takes its share and moves nothing else;
// one less is replaced and moves nothing else; another disk moves nothing.
func TestPlaceMovesLittle(t *testing.T) {
	const shards = 128
	for n := 3; n <= 9; n++ {
		fewer, more := Place(shards, Replicas, members(n)), Place(shards, Replicas, members(n+1))
		added := ServerID(members(n + 1)[n])
		moved := 0
		for i := range fewer {
			left := 0
			for _, home := range fewer[i] {
				if !slices.Contains(more[i], home) {
					left++
				}
			}
			if left > 0 && (left > 1 || !slices.Contains(more[i], added)) {
				t.Fatalf("%v became %v when %s came", fewer[i], more[i], added)
			}
			moved += left
		}
		if share := Replicas * shards / (n + 1); moved < share/2 || moved > share*3/2 {
			t.Errorf("%d nodes and one more: %d replicas moved, its share is %d", n, moved, share)
		}
	}
	wiped := members(5)
	wiped[2].Disk = "new"
	for i, homes := range Place(shards, Replicas, wiped) {
		for j, before := range Place(shards, Replicas, members(5))[i] {
			if before != homes[j] && homes[j] != "node-2/new" {
				t.Fatalf("shard %d is on %v after a disk was replaced", i+1, homes)
			}
		}
	}
}

func TestSlotsAreSpreadOverShards(t *testing.T) {
	m := born(t, 6, "a")
	count := map[uint32]int{}
	for i := range 6000 {
		count[m.ShardOf(fmt.Sprint("client", i))]++
	}
	for shard := uint32(1); shard <= 6; shard++ {
		if n := count[shard]; n < 850 || n > 1150 {
			t.Errorf("shard %d has %d of 6000 keys", shard, n)
		}
	}
	if len(count) != 6 {
		t.Errorf("shards are %v", count)
	}
}
