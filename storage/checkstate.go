package storage

import (
	"encoding/binary"
	"fmt"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// stateCheck reads a state file from end to end. Rows of long values come apart
// from their first ones, so their bytes are counted per bucket: the sum of all
// CRCs says that none is missing, the count that none is too many.
type stateCheck struct {
	bad   func(problem string)
	head  *shoalpb.StateHead
	sum   uint64
	wants map[string]uint64 // rows the first ones say there are more, by bucket
	has   map[string]uint64
}

// checkState reads all of a state file and reports each problem. It returns the
// file's head, nil if that was not found. disk is the disk id the file must
// have, "" for any.
func checkState(path, disk string, group uint32, bad func(problem string)) *shoalpb.StateHead {
	c := &stateCheck{bad: bad, wants: make(map[string]uint64), has: make(map[string]uint64)}
	tx, ok := checkFile(path, c.row, bad)
	if !ok {
		return nil
	}
	h := c.head
	switch {
	case h == nil:
		bad("the head is missing")
	case h.Format != Format:
		c.problem("has format %d, this program knows %d", h.Format, Format)
	case disk != "" && h.Disk != disk:
		c.problem("is of disk %s, not %s", h.Disk, disk)
	case h.Group != group:
		c.problem("is of group %d, not %d", h.Group, group)
	case h.Tx != tx:
		c.problem("pages of transaction %d are missing, the head is of %d", tx, h.Tx)
	case h.RowsSum != c.sum:
		c.problem("the rows do not add up")
	case h.Marker == nil && len(c.has)+len(c.wants) > 0:
		c.problem("rows without a marker")
	}
	for name := range c.has {
		if _, ok := c.wants[name]; !ok {
			c.problem("bucket %q has parts of values only", name)
		}
	}
	for name, n := range c.wants {
		if n != c.has[name] {
			c.problem("bucket %q has %d parts of values, not %d", name, c.has[name], n)
		}
	}
	return h
}

func (c *stateCheck) problem(format string, args ...any) { c.bad(fmt.Sprintf(format, args...)) }

func (c *stateCheck) row(path []string, key, value []byte) {
	if len(path) != 1 || path[0] == "" {
		c.problem("row %x in bucket %q is none of ours", key, path)
		return
	}
	name := path[0]
	payload, ok := openRow(checksum([]byte(name)), key, value)
	if !ok {
		c.problem("row %x of bucket %q: CRC does not match", key, name)
		return
	}
	if name == string(headKey) {
		c.readHead(key, payload)
		return
	}
	c.sum += uint64(storedCRC(value))
	switch name[0] {
	case 'r':
		size, n := binary.Uvarint(payload)
		if n <= 0 || uint64(len(payload)-n) != min(size, rowBytes) {
			c.problem("row %x of bucket %q: %d bytes in the first row", key, name, len(payload))
			return
		}
		c.wants[name[1:]] += uint64(valueParts(size) - 1)
	case 'm':
		c.has[name[1:]]++
	default:
		c.problem("bucket %q is none of ours", name)
	}
}

func (c *stateCheck) readHead(key, payload []byte) {
	h := new(shoalpb.StateHead)
	if err := h.UnmarshalVT(payload); err != nil || string(key) != string(headKey) {
		c.problem("head: row %x: %v", key, err)
		return
	}
	c.head = h
}
