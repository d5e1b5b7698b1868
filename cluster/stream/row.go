package stream

import (
	"fmt"
	"hash"
	"maps"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// rowFormat is the version of the row written by AppendRow.
const rowFormat = 1

// Digest writes the state to h. Two replicas of a group that applied the same
// entries write the same.
func (in *In) Digest(h hash.Hash) {
	h.Write(in.AppendRow(nil))
}

// AppendRow appends the state to dst as one row. Equal states give equal rows.
func (in *In) AppendRow(dst []byte) []byte {
	row := &shoalpb.StreamsRow{Format: rowFormat, Group: in.group, Life: in.life, Fence: in.fence}
	for _, name := range slices.Sorted(maps.Keys(in.nodes)) {
		n := in.nodes[name]
		of := &shoalpb.StreamsOfNode{Node: name, MinBoot: n.minBoot}
		for _, s := range n.streams {
			of.Streams = append(of.Streams, s.row(0))
		}
		row.Nodes = append(row.Nodes, of)
	}
	for _, group := range slices.Sorted(maps.Keys(in.shards)) {
		row.Shards = append(row.Shards, in.shards[group].row(group))
	}
	size := row.SizeVT()
	dst = slices.Grow(dst, size)
	end := len(dst) + size
	// Marshalling into a buffer of the right size does not fail.
	if _, err := row.MarshalToSizedBufferVT(dst[len(dst):end]); err != nil {
		panic(fmt.Sprintf("encode streams: %v", err))
	}
	return dst[:end]
}

func (s *inStream) row(group uint32) *shoalpb.StreamRow {
	return &shoalpb.StreamRow{Boot: s.boot, Group: group, Life: s.life, Last: s.last, Answers: s.answers, Adopt: s.adopt}
}

// LoadRow replaces the state by a row of AppendRow. b is not kept. A row of
// another group is an error; the life is the row's.
func (in *In) LoadRow(b []byte) error {
	row := &shoalpb.StreamsRow{}
	if err := row.UnmarshalVT(b); err != nil {
		return fmt.Errorf("decode streams: %w", err)
	}
	if row.Format != rowFormat {
		return fmt.Errorf("decode streams: unknown format %d", row.Format)
	}
	if err := CheckKnown(row); err != nil {
		return fmt.Errorf("decode streams: %w", err)
	}
	if row.Group != in.group {
		return fmt.Errorf("decode streams: row is of group %d, not %d", row.Group, in.group)
	}
	*in = *NewIn(row.Group, row.Life)
	in.fence = row.Fence
	for _, of := range row.Nodes {
		n := &inNode{minBoot: of.MinBoot}
		for _, s := range of.Streams {
			n.streams = append(n.streams, loaded(s))
		}
		in.nodes[of.Node] = n
	}
	for _, s := range row.Shards {
		in.shards[s.Group] = loaded(s)
	}
	return nil
}

func loaded(s *shoalpb.StreamRow) *inStream {
	return &inStream{boot: s.Boot, life: s.Life, last: s.Last, answers: s.Answers, adopt: s.Adopt}
}
