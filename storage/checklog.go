package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// logCheck reads a log file from end to end.
type logCheck struct {
	bad    func(problem string)
	head   *shoalpb.LogHead
	groups map[uint32]*groupCheck
}

// groupCheck is one group's rows as they come.
type groupCheck struct {
	rows  groupRows
	found bool   // the head was read
	sum   uint64 // rows_sum of the head

	// the entry whose rows are being read, bytes it still needs
	index, need uint64
	part        uint32
	runs        []run
}

// run is entries without a hole.
type run struct{ first, last uint64 }

// checkLog reads all of a log file and reports each problem: structure, CRCs,
// sums, holes. It returns what the file holds. disk is the disk id it must have,
// "" for any.
func checkLog(path, disk string, bad func(problem string)) map[uint32]*groupRows {
	c := &logCheck{bad: bad, groups: make(map[uint32]*groupCheck)}
	tx, ok := checkFile(path, c.row, bad)
	if !ok {
		return nil
	}
	groups := make(map[uint32]*groupRows, len(c.groups))
	var sum uint64
	for id, g := range c.groups {
		c.finish(id, g)
		sum += uint64(g.rows.headCRC)
		groups[id] = &g.rows
	}
	switch h := c.head; {
	case h == nil:
		bad("the head is missing")
	case h.Format != Format:
		bad(fmt.Sprintf("has format %d, this program knows %d", h.Format, Format))
	case disk != "" && h.Disk != disk:
		bad(fmt.Sprintf("is of disk %s, not %s", h.Disk, disk))
	case h.Tx != tx:
		bad(fmt.Sprintf("pages of transaction %d are missing, the head is of %d", tx, h.Tx))
	case h.HeadsSum != sum:
		bad("the groups' heads do not add up")
	}
	return groups
}

func (c *logCheck) problem(format string, args ...any) { c.bad(fmt.Sprintf(format, args...)) }

func (c *logCheck) row(path []string, key, value []byte) {
	if len(path) == 0 {
		c.problem("row %x outside of a bucket", key)
		return
	}
	base := checksum([]byte(path[0]))
	payload, ok := openRow(base, key, value)
	switch {
	case !ok:
		c.problem("row %x of bucket %x: CRC does not match", key, path[0])
	case len(path) == 1 && string(key) != string(headKey):
		c.problem("row %x of bucket %x is none of ours", key, path[0])
	case len(path) == 1 && path[0] == string(headKey):
		h := new(shoalpb.LogHead)
		if err := h.UnmarshalVT(payload); err != nil {
			c.problem("head: %v", err)
		}
		c.head = h
	case len(path[0]) != 5 || path[0][0] != 'g' || len(path) > 2:
		c.problem("bucket %x is none of ours", path[0])
	default:
		id := binary.BigEndian.Uint32([]byte(path[0][1:]))
		if len(path) == 1 {
			c.groupHead(id, payload, storedCRC(value))
		} else {
			c.entryRow(id, path[1], key, payload, storedCRC(value))
		}
	}
}

func (c *logCheck) group(id uint32) *groupCheck {
	g := c.groups[id]
	if g == nil {
		g = &groupCheck{rows: groupRows{chunks: make(map[uint64]uint64)}}
		c.groups[id] = g
	}
	return g
}

func (c *logCheck) groupHead(id uint32, payload []byte, crc uint32) {
	g := c.group(id)
	var h shoalpb.GroupHead
	if err := h.UnmarshalVT(payload); err != nil {
		c.problem("head of group %d: %v", id, err)
		return
	}
	g.found, g.sum, g.rows.headCRC = true, h.RowsSum, crc
	g.rows.head = head{first: h.First, last: h.Last, commit: h.Commit}
	for _, v := range h.Stable {
		if g.rows.head.stable == nil {
			g.rows.head.stable = make(map[string][]byte)
		}
		g.rows.head.stable[string(v.Key)] = v.Value
	}
}

// entryRow checks the row against the one before it.
func (c *logCheck) entryRow(id uint32, chunk string, key, payload []byte, crc uint32) {
	g := c.group(id)
	if len(key) != 12 || len(chunk) != 8 {
		c.problem("group %d: row %x of chunk %x is none of ours", id, key, chunk)
		return
	}
	index, part := binary.BigEndian.Uint64(key), binary.BigEndian.Uint32(key[8:])
	n := binary.BigEndian.Uint64([]byte(chunk))
	if chunkOf(index) != n {
		c.problem("group %d: entry %d is in chunk %d", id, index, n)
	}
	g.rows.chunks[n] += uint64(crc)
	if part == 0 {
		c.endEntry(id, g)
		var l raft.Log
		data, ext, err := parseEntryHead(payload, index, &l)
		if err != nil {
			c.problem("group %d, entry %d: %v", id, index, err)
			return
		}
		g.index, g.part, g.need = index, 0, uint64(entryHeader+data+ext)
		g.addRun(index)
	} else if g.part++; index != g.index || part != g.part {
		c.problem("group %d: row %d of entry %d follows row %d of %d", id, part, index, g.part-1, g.index)
		g.index, g.part = index, part
	}
	if uint64(len(payload)) > g.need {
		c.problem("group %d: entry %d has bytes too many", id, index)
		g.need = 0
		return
	}
	g.need -= uint64(len(payload))
}

func (c *logCheck) endEntry(id uint32, g *groupCheck) {
	if g.need != 0 {
		c.problem("group %d: entry %d lacks %d bytes", id, g.index, g.need)
		g.need = 0
	}
}

func (g *groupCheck) addRun(index uint64) {
	if n := len(g.runs); n > 0 && g.runs[n-1].last+1 == index {
		g.runs[n-1].last = index
		return
	}
	g.runs = append(g.runs, run{index, index})
}

// finish checks what can be said when all rows were read.
func (c *logCheck) finish(id uint32, g *groupCheck) {
	c.endEntry(id, g)
	if !g.found {
		c.problem("group %d: the head is missing", id)
		return
	}
	var sum uint64
	for _, s := range g.rows.chunks {
		sum += s
	}
	if sum != g.sum {
		c.problem("group %d: the rows do not add up", id)
	}
	h := &g.rows.head
	if h.last == 0 {
		return
	}
	for _, r := range g.runs {
		if r.first <= h.first && h.last <= r.last {
			return
		}
	}
	c.problem("group %d: entries between %d and %d are missing", id, h.first, h.last)
}
