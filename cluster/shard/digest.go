package shard

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
)

// Digest is a hash of the complete state. Replicas that applied the same
// entries have the same, wherever they took checkpoints or were restored. It
// takes time in proportion to the state.
func (m *Machine) Digest() [32]byte {
	d := digest{sha256.New()}
	d.add(m.metaRow())
	bodies := map[*body]struct{}{}
	use := func(b *body) { bodies[b] = struct{}{} }
	for _, s := range slices.SortedFunc(maps.Values(m.sessions), byClient) {
		d.add([]byte(s.client))
		d.add(s.row(use))
	}
	m.filters.All(func(name string, f *filter) bool {
		d.add([]byte(name))
		d.add(f.row(use))
		d.add([]byte{f.qos()})
		return true
	})
	for _, o := range m.outboxes {
		for _, e := range o.entries {
			if e.body != nil {
				use(e.body)
			}
			d.add(e.row())
		}
	}
	for _, due := range m.due.list {
		if due != nil {
			d.add(bodyKey(due.id))
			d.add(due.row(use))
		}
	}
	for _, b := range slices.SortedFunc(maps.Keys(bodies), func(a, b *body) int { return cmp.Compare(a.seq, b.seq) }) {
		d.add(bodyKey(b.seq))
		d.add(b.row())
	}
	var sum [32]byte
	d.Sum(sum[:0])
	return sum
}

// digest hashes rows with their lengths, so that their bounds count.
type digest struct{ hash.Hash }

func (d digest) add(row []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(row)))
	d.Write(n[:])
	d.Write(row)
}
