package stream

import shoalpb "github.com/shoalmq/shoal/proto"

// Fence marks all boots of nodes below the given ones as dead and forgets their
// streams. It returns those of nodes that fenced a boot not fenced before, in
// the order given. The fence number becomes number unless it is higher already.
func (in *In) Fence(number uint64, nodes []*shoalpb.NodeBoot) (fenced []*shoalpb.NodeBoot) {
	in.fence = max(in.fence, number)
	for _, f := range nodes {
		if f.Boot <= in.MinBoot(f.Node) {
			continue
		}
		n := in.node(f.Node)
		n.minBoot = f.Boot
		for len(n.streams) > 0 && n.streams[0].boot < f.Boot {
			n.streams = n.streams[1:]
		}
		fenced = append(fenced, f)
	}
	return fenced
}

// FenceNumber returns the fence number: how many of the directory's fences this
// group knows.
func (in *In) FenceNumber() uint64 { return in.fence }

// MinBoot returns the lowest boot of node that is not fenced.
func (in *In) MinBoot(node string) uint64 {
	if n := in.nodes[node]; n != nil {
		return n.minBoot
	}
	return 0
}

// Adopt makes the streams of the outboxes of groups 1 to shards count from
// whatever number their next batch has: source and target have been recovered
// from copies of different age. What the source sends again is done again; what
// this group has forgotten and the source has not kept is lost.
func (in *In) Adopt(shards uint32) {
	for group := uint32(1); group <= shards; group++ {
		if group == in.group {
			continue
		}
		if in.shards[group] == nil {
			in.shards[group] = &inStream{life: 1}
		}
		in.shards[group].adopt = true
	}
}

// Jump raises the fence number by so much that no group has heard of a fence
// after it.
func (in *In) Jump(by uint64) { in.fence += by }
