package storage

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	shoalpb "github.com/shoalmq/shoal/proto"
	bolt "go.etcd.io/bbolt"
)

// boltLog is the engine over one bbolt file:
//
//	head ─ head                 LogHead
//	g<group, 4 bytes> ─ head    GroupHead
//	                  ─ <index / chunkEntries, 8 bytes> ─ <index, 8> <part, 4>
//
// A chunk is dropped as a whole; entries in a chunk before the head's first stay
// until all of it can go. Each row carries a CRC, each head the sum of the CRCs
// below it, the file's head the number of its transaction: a row that is
// damaged, missing or of another time does not go unseen.
type boltLog struct {
	*boltFile
	disk   string
	groups map[uint32]*groupRows // of the committer
}

// groupRows is what is in the file of one group.
type groupRows struct {
	head    head
	headCRC uint32
	chunks  map[uint64]uint64 // sum of row CRCs, by chunk
	dirty   bool              // the head row must be written
}

var headKey = []byte("head")

func groupBucket(group uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{'g'}, group)
}

func chunkKey(chunk uint64) []byte { return binary.BigEndian.AppendUint64(nil, chunk) }

func chunkOf(index uint64) uint64 { return index / chunkEntries }

// newLogFile makes an empty log file at path.
func newLogFile(path string, h *health, open openFunc, disk string) error {
	f, err := openBolt(path, h, open)
	if err != nil {
		return err
	}
	b := &boltLog{boltFile: f, disk: disk, groups: make(map[uint32]*groupRows)}
	err = b.commit(nil)
	if cerr := f.close(); err == nil {
		err = cerr
	}
	return err
}

// openBoltLog checks and opens the file.
func openBoltLog(path string, d *Dir) (*boltLog, error) {
	problem := firstProblem{path: path}
	groups := checkLog(path, d.disk, problem.report)
	if problem.err != nil {
		return nil, problem.err
	}
	if err := reserveFile(path, d.opt.ReserveBytes); err != nil {
		return nil, fmt.Errorf("reserve space of %s: %w", path, err)
	}
	f, err := openBolt(path, d.health, d.opt.OpenFile)
	if err != nil {
		return nil, err
	}
	return &boltLog{boltFile: f, disk: d.disk, groups: groups}, nil
}

// reserveFile makes the file at least size bytes long; bbolt then need not grow
// it, which costs a third fsync.
func reserveFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	if err := reserve(f, size); err != nil {
		return err
	}
	return f.Sync()
}

// commit ends the use of the disk if it fails: what it has changed in memory is
// then no longer what is in the file.
func (b *boltLog) commit(changes []*change) error {
	err := b.update(func(tx *bolt.Tx) error {
		for _, c := range changes {
			if err := b.apply(tx, c); err != nil {
				return err
			}
		}
		if err := b.free(tx); err != nil {
			return err
		}
		return b.writeHeads(tx)
	})
	if err != nil {
		return b.health.fail(err)
	}
	return nil
}

// apply makes one group's change.
func (b *boltLog) apply(tx *bolt.Tx, c *change) error {
	g := b.groups[c.group]
	if g == nil {
		g = &groupRows{chunks: make(map[uint64]uint64)}
		b.groups[c.group] = g
	}
	bucket, err := tx.CreateBucketIfNotExists(groupBucket(c.group))
	if err != nil {
		return fmt.Errorf("make bucket of group %d: %w", c.group, err)
	}
	for _, s := range c.steps {
		if s.cut != 0 {
			err = g.cut(bucket, s.cut)
		} else {
			err = g.append(bucket, s)
		}
		if err != nil {
			return fmt.Errorf("write entries of group %d: %w", c.group, err)
		}
	}
	g.head, g.dirty = c.head, true
	return nil
}

// append puts the rows of a batch. What a chunk holds before its first entry
// comes was dropped before.
func (g *groupRows) append(bucket *bolt.Bucket, s step) error {
	var chunk *bolt.Bucket
	var at uint64
	for i := range s.append.rows {
		r := &s.append.rows[i]
		n := chunkOf(r.index)
		if chunk == nil || n != at {
			if i == 0 && s.fresh || r.index%chunkEntries == 0 {
				if err := g.drop(bucket, n); err != nil {
					return err
				}
			}
			var err error
			if chunk, err = bucket.CreateBucketIfNotExists(chunkKey(n)); err != nil {
				return err
			}
			chunk.FillPercent = 1 // entries come in order
			at = n
		}
		if err := chunk.Put(r.key(), r.value); err != nil {
			return err
		}
		g.chunks[n] += uint64(storedCRC(r.value))
	}
	return nil
}

// drop frees a chunk, if it is there.
func (g *groupRows) drop(bucket *bolt.Bucket, chunk uint64) error {
	if _, there := g.chunks[chunk]; !there {
		return nil
	}
	delete(g.chunks, chunk)
	return bucket.DeleteBucket(chunkKey(chunk))
}

// cut drops the entries from index on that share a chunk with one that stays.
// Later chunks are garbage by the new head.
func (g *groupRows) cut(bucket *bolt.Bucket, index uint64) error {
	n := chunkOf(index)
	chunk := bucket.Bucket(chunkKey(n))
	if chunk == nil || index%chunkEntries == 0 {
		return nil
	}
	var keys [][]byte // a cursor skips rows when it deletes
	c := chunk.Cursor()
	for k, v := c.Seek(rowKey(index, 0)); k != nil; k, v = c.Next() {
		keys = append(keys, slices.Clone(k))
		g.chunks[n] -= uint64(storedCRC(v))
	}
	for _, k := range keys {
		if err := chunk.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// garbage reports whether chunk n holds no entry of the log.
func (g *groupRows) garbage(n uint64) bool {
	return g.head.last == 0 || n < chunkOf(g.head.first) || n > chunkOf(g.head.last)
}

// leftover reports whether there is a chunk to free.
func (g *groupRows) leftover() bool {
	live := 0
	if g.head.last != 0 {
		live = int(chunkOf(g.head.last) - chunkOf(g.head.first) + 1)
	}
	return len(g.chunks) > live
}

func (b *boltLog) sweep() bool {
	for _, g := range b.groups {
		if g.leftover() {
			return true
		}
	}
	return false
}

// free drops some chunks that are no longer needed.
func (b *boltLog) free(tx *bolt.Tx) error {
	budget := sweepChunks
	for id, g := range b.groups {
		if !g.leftover() {
			continue
		}
		for n := range g.chunks {
			if !g.garbage(n) {
				continue
			}
			if budget--; budget < 0 {
				return nil
			}
			if err := g.drop(tx.Bucket(groupBucket(id)), n); err != nil {
				return fmt.Errorf("free entries of group %d: %w", id, err)
			}
			g.dirty = true
		}
	}
	return nil
}

// writeHeads writes the heads of the groups that changed, then the file's.
func (b *boltLog) writeHeads(tx *bolt.Tx) error {
	var sum uint64
	for id, g := range b.groups {
		if g.dirty {
			crc, err := putRecord(tx.Bucket(groupBucket(id)), checksum(groupBucket(id)), g.record())
			if err != nil {
				return fmt.Errorf("write head of group %d: %w", id, err)
			}
			g.headCRC, g.dirty = crc, false
		}
		sum += uint64(g.headCRC)
	}
	bucket, err := tx.CreateBucketIfNotExists(headKey)
	if err != nil {
		return err
	}
	_, err = putRecord(bucket, checksum(headKey), &shoalpb.LogHead{
		Format: Format, Disk: b.disk, Tx: uint64(tx.ID()), HeadsSum: sum,
	})
	return err
}

// record is the head as it is stored.
func (g *groupRows) record() *shoalpb.GroupHead {
	r := &shoalpb.GroupHead{First: g.head.first, Last: g.head.last, Commit: g.head.commit}
	for _, sum := range g.chunks {
		r.RowsSum += sum
	}
	for k, v := range g.head.stable {
		r.Stable = append(r.Stable, &shoalpb.StableValue{Key: []byte(k), Value: v})
	}
	slices.SortFunc(r.Stable, func(a, b *shoalpb.StableValue) int { return slices.Compare(a.Key, b.Key) })
	return r
}

// record is a generated message.
type record interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// putRecord stores a head in its bucket, which has the checksum base.
func putRecord(bucket *bolt.Bucket, base uint32, r record) (crc uint32, err error) {
	row := make([]byte, crcBytes+r.SizeVT())
	if _, err := r.MarshalToSizedBufferVT(row[crcBytes:]); err != nil {
		return 0, err
	}
	crc = sealRow(base, headKey, row)
	return crc, bucket.Put(headKey, row)
}
