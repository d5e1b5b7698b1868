package storage

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// An entry is the bytes of a header, its data and its extensions, cut into rows
// of at most rowBytes. The header, in the first row:
//
//	term 8, type 1, time appended 8 (ns since 1970, noTime for none),
//	length of data 4, of extensions 4
const entryHeader = 25

const noTime = math.MinInt64

// logRow is one row of an entry, sealed.
type logRow struct {
	index uint64
	part  uint32
	value []byte
}

func (r *logRow) key() []byte { return rowKey(r.index, r.part) }

func rowKey(index uint64, part uint32) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint64(b, index)
	binary.BigEndian.PutUint32(b[8:], part)
	return b
}

// batch is the rows of entries that follow each other.
type batch struct {
	rows []logRow
}

func entryBytes(l *raft.Log) int { return entryHeader + len(l.Data) + len(l.Extensions) }

// entryRows is the number of rows of n bytes of an entry.
func entryRows(n int) int { return (n + rowBytes - 1) / rowBytes }

func (b *boltLog) encode(group uint32, logs []*raft.Log) *batch {
	rows, total := 0, 0
	for _, l := range logs {
		n := entryBytes(l)
		rows += entryRows(n)
		total += n
	}
	out := &batch{rows: make([]logRow, 0, rows)}
	buf := make([]byte, 0, total+rows*crcBytes)
	base := checksum(groupBucket(group))
	for _, l := range logs {
		buf = out.cut(buf, base, l)
	}
	return out
}

// cut appends the rows of one entry; their values lie in buf, which is long
// enough.
func (b *batch) cut(buf []byte, base uint32, l *raft.Log) []byte {
	rest := [3][]byte{entryHead(l), l.Data, l.Extensions}
	left := entryBytes(l)
	for part := uint32(0); left > 0; part++ {
		start := len(buf)
		buf = append(buf, 0, 0, 0, 0)
		room := min(rowBytes, left)
		left -= room
		for i := range rest {
			n := min(room, len(rest[i]))
			buf = append(buf, rest[i][:n]...)
			rest[i] = rest[i][n:]
			room -= n
		}
		r := logRow{index: l.Index, part: part, value: buf[start:len(buf):len(buf)]}
		sealRow(base, r.key(), r.value)
		b.rows = append(b.rows, r)
	}
	return buf
}

func entryHead(l *raft.Log) []byte {
	h := make([]byte, 0, entryHeader)
	h = binary.LittleEndian.AppendUint64(h, l.Term)
	h = append(h, byte(l.Type))
	at := int64(noTime)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	h = binary.LittleEndian.AppendUint64(h, uint64(at))
	h = binary.LittleEndian.AppendUint32(h, uint32(len(l.Data)))
	return binary.LittleEndian.AppendUint32(h, uint32(len(l.Extensions)))
}

// parseEntryHead reads the header in the first row of entry index into out and
// returns the lengths of data and extensions.
func parseEntryHead(payload []byte, index uint64, out *raft.Log) (data, ext int, err error) {
	if len(payload) < entryHeader {
		return 0, 0, errors.New("entry without a header")
	}
	*out = raft.Log{
		Index: index,
		Term:  binary.LittleEndian.Uint64(payload),
		Type:  raft.LogType(payload[8]),
	}
	if at := int64(binary.LittleEndian.Uint64(payload[9:])); at != noTime {
		out.AppendedAt = time.Unix(0, at)
	}
	return int(binary.LittleEndian.Uint32(payload[17:])), int(binary.LittleEndian.Uint32(payload[21:])), nil
}

func (b *boltLog) read(group uint32, index uint64, out *raft.Log) error {
	return b.view(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(groupBucket(group))
		if bucket == nil {
			return raft.ErrLogNotFound
		}
		chunk := bucket.Bucket(chunkKey(chunkOf(index)))
		if chunk == nil {
			return raft.ErrLogNotFound
		}
		return b.readEntry(chunk.Cursor(), checksum(groupBucket(group)), index, out)
	})
}

func (b *boltLog) sizes(group uint32, last uint64, visit func(bytes int) bool) error {
	return b.view(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(groupBucket(group))
		if bucket == nil {
			return nil
		}
		base := checksum(groupBucket(group))
		var chunk *bolt.Bucket
		for index := last; index > 0; index-- {
			if chunk == nil || (index+1)%chunkEntries == 0 {
				if chunk = bucket.Bucket(chunkKey(chunkOf(index))); chunk == nil {
					return nil
				}
			}
			row := chunk.Get(rowKey(index, 0))
			if row == nil {
				return nil
			}
			payload, ok := openRow(base, rowKey(index, 0), row)
			if !ok {
				return badDisk(b.path, "entry %d: CRC of row 0 does not match", index)
			}
			data, ext, err := parseEntryHead(payload, index, &raft.Log{})
			if err != nil {
				return badDisk(b.path, "entry %d: %v", index, err)
			}
			if !visit(entryHeader + data + ext) {
				return nil
			}
		}
		return nil
	})
}

// readEntry puts the rows of an entry together.
func (b *boltLog) readEntry(c *bolt.Cursor, base uint32, index uint64, out *raft.Log) error {
	key := rowKey(index, 0)
	k, row := c.Seek(key)
	if string(k) != string(key) {
		return raft.ErrLogNotFound
	}
	var buf []byte
	var data, ext int
	for part := uint32(0); ; part++ {
		payload, ok := openRow(base, rowKey(index, part), row)
		if !ok {
			return badDisk(b.path, "entry %d: CRC of row %d does not match", index, part)
		}
		if part == 0 {
			var err error
			if data, ext, err = parseEntryHead(payload, index, out); err != nil {
				return badDisk(b.path, "entry %d: %v", index, err)
			}
			buf = make([]byte, 0, data+ext)
			payload = payload[entryHeader:]
		}
		buf = append(buf, payload...)
		if len(buf) >= data+ext {
			break
		}
		if k, row = c.Next(); k == nil {
			return badDisk(b.path, "entry %d: row %d is missing", index, part+1)
		}
	}
	if len(buf) != data+ext {
		return badDisk(b.path, "entry %d: %d bytes too many", index, len(buf)-data-ext)
	}
	if data > 0 {
		out.Data = buf[:data:data]
	}
	if ext > 0 {
		out.Extensions = buf[data:]
	}
	return nil
}
