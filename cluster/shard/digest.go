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
		d.add(encode(s.record(use, true)))
	}
	m.eachFilter(func(f *filter) bool {
		d.add([]byte(f.name))
		if sh := m.shares[f.name]; sh != nil {
			d.add(sh.row(use))
		} else {
			d.add(f.row(use))
		}
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
	m.retained.All(func(name string, r *retained) bool {
		d.add([]byte(name))
		d.add(r.row(use))
		return true
	})
	for _, b := range slices.SortedFunc(maps.Keys(bodies), func(a, b *body) int { return cmp.Compare(a.seq, b.seq) }) {
		d.add(b.digest())
	}
	var sum [32]byte
	d.Sum(sum[:0])
	return sum
}

// digest is the same whether the message is in memory or not.
func (b *body) digest() []byte {
	sum := b.sum
	if b.message != nil {
		sum = contentSum(b.message)
	}
	d := binary.BigEndian.AppendUint64(bodyKey(b.seq), b.at)
	d = binary.BigEndian.AppendUint64(d, b.until)
	d = binary.BigEndian.AppendUint32(d, b.size)
	return binary.BigEndian.AppendUint32(d, sum)
}

// digest hashes rows with their lengths, so that their bounds count.
type digest struct{ hash.Hash }

func (d digest) add(row []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(row)))
	d.Write(n[:])
	d.Write(row)
}
