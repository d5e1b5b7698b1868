package directory

import (
	"cmp"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Slot returns the slot of a Client Identifier or a Topic Name. It is part of
// the disk and wire formats and never changes: FNV-1a, 64 bits, its halves
// folded, modulo Slots.
func Slot(key string) int {
	h := fnv1a(fnvOffset, key)
	return int((h ^ h>>32) % Slots)
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func fnv1a(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// Place chooses replicas for shards 1 to shards among members: for each shard
// the members with the highest weights for it (rendezvous hashing), so a member
// more or less moves only the replicas that it gets or had. Result i is of shard
// i+1, as "node/disk", the preferred leader first; those are spread evenly. The
// weight hangs on the node's name alone, so a node with a new disk gets the
// replicas back that it had.
func Place(shards uint32, replicas int, members []*shoalpb.NodeDisk) [][]string {
	placed := make([][]string, shards)
	leads := map[*shoalpb.NodeDisk]int{}
	for i := range placed {
		chosen := ranked(uint32(i+1), members)[:min(replicas, len(members))]
		// The preferred leader is the one that has been preferred least; of
		// several the one that weighs most.
		best := 0
		for j, member := range chosen {
			if leads[member] < leads[chosen[best]] {
				best = j
			}
		}
		leads[chosen[best]]++
		placed[i] = append(placed[i], ServerID(chosen[best]))
		for _, member := range slices.Delete(chosen, best, best+1) {
			placed[i] = append(placed[i], ServerID(member))
		}
	}
	return placed
}

// ranked returns members by falling weight for shard.
func ranked(shard uint32, members []*shoalpb.NodeDisk) []*shoalpb.NodeDisk {
	return slices.SortedFunc(slices.Values(members), func(a, b *shoalpb.NodeDisk) int {
		return cmp.Or(cmp.Compare(weight(shard, b.Node), weight(shard, a.Node)), cmp.Compare(a.Node, b.Node))
	})
}

// weight ranks node for shard. FNV-1a alone mixes its last bytes badly, so the
// multiply-and-shift steps of MurmurHash3's finalizer follow.
func weight(shard uint32, node string) uint64 {
	h := (fnv1a(fnvOffset, node) ^ uint64(shard)) * fnvPrime
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// ServerID names a replica's home, "node/disk": raft's ServerID and
// ServerAddress.
func ServerID(m *shoalpb.NodeDisk) string { return m.Node + "/" + m.Disk }
