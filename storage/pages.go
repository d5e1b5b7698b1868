package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The reader below knows bbolt's file format (version 2) because bbolt itself
// believes what it reads: opening a damaged file ends the process by a panic
// in a goroutine of bbolt's own, or quietly shows fewer rows. Every file is
// read by it before bbolt may open it. It trusts no byte: a problem is reported
// with its page, what hangs below is left out.
//
// A page is a header {id 8, flags 2, count 2, overflow 4}, the elements, then
// keys and values. Numbers are in the byte order of the machine.

const (
	pageHeader    = 16
	pageElement   = 16
	branchPage    = 0x01
	leafPage      = 0x02
	metaPage      = 0x04
	bucketFlag    = 0x01
	bucketHeader  = 16
	metaSum       = 56 // bytes of a meta record before its checksum
	metaMagic     = 0xED0CDAED
	metaVersion   = 2
	noFreelist    = ^uint64(0)
	overflowLimit = 1 << 12 // pages; four rows with the longest keys need 18
)

var order = binary.NativeEndian

// rowFunc gets each row of a file in key order, bucket by bucket. path names the
// buckets from the root. key and value are valid during the call only.
type rowFunc func(path []string, key, value []byte)

// pageReader walks all pages of one bbolt file.
type pageReader struct {
	r    io.ReaderAt
	row  rowFunc
	bad  func(problem string)
	high uint64 // pages in use are below it
	seen []uint64
	free [][]byte
}

// readPages walks a bbolt file of the given size and returns the number of its
// last transaction. ok is false if there was nothing to walk.
func readPages(r io.ReaderAt, size int64, row rowFunc, bad func(problem string)) (tx uint64, ok bool) {
	p := &pageReader{r: r, row: row, bad: bad}
	m, err := p.metas()
	if err != nil {
		bad(err.Error())
		return 0, false
	}
	if uint64(size)/pageBytes < m.high {
		bad(fmt.Sprintf("file has %d bytes, its pages need %d", size, m.high*pageBytes))
		return 0, false
	}
	p.high = m.high
	p.seen = make([]uint64, m.high/64+1)
	p.page(m.root, nil, span{}, 0)
	return m.tx, true
}

// meta is what a meta page says.
type meta struct {
	root, high, tx uint64
}

// metas reads both meta pages. Both must be whole: a meta lies in one sector,
// so a damaged one was not torn, and going back to the other would forget a
// transaction that was reported as done.
func (p *pageReader) metas() (meta, error) {
	var found [2]meta
	for id := range found {
		b := make([]byte, pageBytes)
		if _, err := p.r.ReadAt(b, int64(id)*pageBytes); err != nil {
			return meta{}, fmt.Errorf("page %d: %w", id, err)
		}
		m, err := parseMeta(b, uint64(id))
		if err != nil {
			return meta{}, fmt.Errorf("page %d: %w", id, err)
		}
		found[id] = m
	}
	newer, older := found[0], found[1]
	if older.tx > newer.tx {
		newer, older = older, newer
	}
	// Transactions use the two pages in turn; the first in a copied file may
	// leave a gap.
	if newer.tx-older.tx != 1 && newer.tx-older.tx != 2 {
		return meta{}, fmt.Errorf("meta pages are of transactions %d and %d", older.tx, newer.tx)
	}
	return newer, nil
}

func parseMeta(b []byte, id uint64) (meta, error) {
	if order.Uint64(b) != id || order.Uint16(b[8:]) != metaPage {
		return meta{}, errors.New("not a meta page")
	}
	b = b[pageHeader:]
	if order.Uint32(b) != metaMagic || order.Uint32(b[4:]) != metaVersion {
		return meta{}, errors.New("not a bbolt file of version 2")
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaSum])
	if sum.Sum64() != order.Uint64(b[metaSum:]) {
		return meta{}, errors.New("checksum of the meta page does not match")
	}
	if size := order.Uint32(b[8:]); size != pageBytes {
		return meta{}, fmt.Errorf("pages of %d bytes", size)
	}
	return meta{root: order.Uint64(b[16:]), high: order.Uint64(b[40:]), tx: order.Uint64(b[48:])}, nil
}

// span bounds the keys of a subtree: from is at or below the first, below is
// above the last; nil is no bound.
type span struct{ from, below []byte }

func (p *pageReader) problem(id uint64, format string, args ...any) {
	p.bad(fmt.Sprintf("page %d: ", id) + fmt.Sprintf(format, args...))
}

// page reads the page and all below it.
func (p *pageReader) page(id uint64, path []string, keys span, depth int) {
	if depth > maxTreeDepth {
		p.problem(id, "the tree is too deep")
		return
	}
	b := p.load(id)
	if b == nil {
		return
	}
	defer p.release(b)
	if used := p.contents(id, b, path, keys, depth); used > 0 && (used-1)/pageBytes+1 != len(b)/pageBytes {
		p.problem(id, "takes %d pages for %d bytes", len(b)/pageBytes, used)
	}
}

// load reads a page with its overflow, nil if it is not one.
func (p *pageReader) load(id uint64) []byte {
	if id < 2 || id >= p.high {
		p.problem(id, "outside of the file's %d pages", p.high)
		return nil
	}
	b := p.buffer(pageBytes)
	if _, err := p.r.ReadAt(b, int64(id)*pageBytes); err != nil {
		p.problem(id, "%v", err)
		return nil
	}
	if order.Uint64(b) != id {
		p.problem(id, "says it is page %d", order.Uint64(b))
		return nil
	}
	more := uint64(order.Uint32(b[12:]))
	if more >= overflowLimit || id+more >= p.high {
		p.problem(id, "goes on for %d pages", more)
		return nil
	}
	for i := id; i <= id+more; i++ {
		if p.seen[i/64]&(1<<(i%64)) != 0 {
			p.problem(id, "page %d is in two places", i)
			return nil
		}
		p.seen[i/64] |= 1 << (i % 64)
	}
	if more == 0 {
		return b
	}
	p.release(b)
	b = p.buffer(int(more+1) * pageBytes)
	if _, err := p.r.ReadAt(b, int64(id)*pageBytes); err != nil {
		p.problem(id, "%v", err)
		return nil
	}
	return b
}

// contents reads the elements in b, a page or an inline bucket of page id, and
// returns how many bytes they take, 0 if that is unknown.
func (p *pageReader) contents(id uint64, b []byte, path []string, keys span, depth int) (used int) {
	flags, count := order.Uint16(b[8:]), int(order.Uint16(b[10:]))
	if flags != branchPage && flags != leafPage {
		p.problem(id, "is of kind %#x", flags)
		return 0
	}
	used = pageHeader + count*pageElement
	if used > len(b) || flags == branchPage && count == 0 {
		p.problem(id, "says it has %d elements", count)
		return 0
	}
	var last []byte
	for i := range count {
		e, err := parseElement(b, i, flags == leafPage)
		if err == nil && e.start != used {
			err = errors.New("is not beside the one before it")
		}
		if err == nil {
			err = checkKey(e.key, last, keys)
		}
		if err != nil {
			p.problem(id, "element %d %v", i, err)
			return 0
		}
		used, last = e.end, e.key
		switch {
		case flags == branchPage:
			p.page(e.child, path, span{e.key, p.nextKey(b, i, count, keys)}, depth+1)
		case e.bucket:
			p.bucket(id, e, path, depth)
		default:
			p.row(path, e.key, e.value)
		}
	}
	return used
}

func checkKey(key, last []byte, keys span) error {
	switch {
	case len(key) == 0:
		return errors.New("has no key")
	case last != nil && bytes.Compare(last, key) >= 0,
		keys.from != nil && bytes.Compare(key, keys.from) < 0,
		keys.below != nil && bytes.Compare(key, keys.below) >= 0:
		return errors.New("has a key out of order")
	}
	return nil
}

// nextKey is the key above all keys of child i of a branch.
func (p *pageReader) nextKey(b []byte, i, count int, keys span) []byte {
	if i+1 < count {
		if e, err := parseElement(b, i+1, false); err == nil {
			return e.key
		}
	}
	return keys.below
}

// bucket reads the bucket an element of page id holds.
func (p *pageReader) bucket(id uint64, e element, path []string, depth int) {
	if len(e.value) < bucketHeader {
		p.problem(id, "bucket %x has no header", e.key)
		return
	}
	path = append(path[:len(path):len(path)], string(e.key))
	root := order.Uint64(e.value)
	if root != 0 {
		if len(e.value) != bucketHeader {
			p.problem(id, "bucket %x has a header of %d bytes", e.key, len(e.value))
		}
		p.page(root, path, span{}, depth+1)
		return
	}
	inline := e.value[bucketHeader:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != leafPage {
		p.problem(id, "bucket %x holds no leaf", e.key)
		return
	}
	if used := p.contents(id, inline, path, span{}, depth+1); used > 0 && used != len(inline) {
		p.problem(id, "bucket %x takes %d bytes for %d", e.key, len(inline), used)
	}
}

// element is one of a branch or a leaf.
type element struct {
	key, value []byte
	child      uint64
	bucket     bool
	start, end int // of key and value in the page
}

func parseElement(b []byte, i int, leaf bool) (element, error) {
	at := pageHeader + i*pageElement
	h := b[at:]
	var e element
	var pos, ksize, vsize uint64
	if leaf {
		flags := order.Uint32(h)
		if flags&^bucketFlag != 0 {
			return e, fmt.Errorf("is of kind %#x", flags)
		}
		e.bucket = flags == bucketFlag
		pos, ksize, vsize = uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[8:])), uint64(order.Uint32(h[12:]))
	} else {
		pos, ksize, e.child = uint64(order.Uint32(h)), uint64(order.Uint32(h[4:])), order.Uint64(h[8:])
	}
	start := uint64(at) + pos
	if start+ksize+vsize > uint64(len(b)) {
		return e, errors.New("goes beyond its page")
	}
	e.start, e.end = int(start), int(start+ksize+vsize)
	e.key, e.value = b[start:start+ksize], b[start+ksize:start+ksize+vsize]
	return e, nil
}

// buffer returns n bytes, of an earlier page if it can.
func (p *pageReader) buffer(n int) []byte {
	if last := len(p.free) - 1; last >= 0 && cap(p.free[last]) >= n {
		b := p.free[last]
		p.free = p.free[:last]
		return b[:n]
	}
	return make([]byte, n)
}

func (p *pageReader) release(b []byte) { p.free = append(p.free, b) }
