package storage

import (
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// page is some rows of a bucket, copied.
type page struct {
	buf  []byte
	rows []pageRow
}

// pageRow says where in the page's buffer a key and then its value lie.
type pageRow struct{ key, value, end int }

// Scan calls fn with each key of a bucket and its value, in the order of keys;
// both are valid during the call only. A missing bucket is an empty one. It reads
// page by page, each in a short transaction: beside a checkpoint it sees some
// rows of before and some of after. fn may use the StateFile.
func (s *StateFile) Scan(bucket string, fn func(key, value []byte) error) error {
	return s.ScanFrom(bucket, nil, fn)
}

// ScanFrom is Scan from the first key that is not below from.
func (s *StateFile) ScanFrom(bucket string, from []byte, fn func(key, value []byte) error) error {
	var p page
	next := slices.Clone(from)
	for {
		more, err := s.fill(&p, bucket, next)
		if err != nil {
			return fmt.Errorf("scan state of group %d: %w", s.group, err)
		}
		for _, r := range p.rows {
			key := p.buf[r.key:r.value:r.value]
			if err := fn(key, p.buf[r.value:r.end:r.end]); err != nil {
				if err == ErrStop {
					return nil
				}
				return err
			}
			next = append(append(next[:0], key...), 0) // the least key above
		}
		if !more {
			return nil
		}
	}
}

// fill reads the next page; more is false if it was the last.
func (s *StateFile) fill(p *page, bucket string, from []byte) (more bool, err error) {
	p.buf, p.rows = p.buf[:0], p.rows[:0]
	err = s.view(func(tx *bolt.Tx) error {
		b := findBucket(tx, bucket)
		if b == nil {
			return nil
		}
		c := b.rows.Cursor()
		for k, row := c.Seek(from); k != nil; k, row = c.Next() {
			if len(p.rows) >= scanRows || len(p.buf) >= scanBytes {
				more = true
				return nil
			}
			at := len(p.buf)
			p.buf = append(p.buf, k...)
			p.rows = append(p.rows, pageRow{key: at, value: len(p.buf)})
			if p.buf, err = b.appendValue(p.buf, k, row); err != nil {
				return badDisk(s.path, "%v", err)
			}
			p.rows[len(p.rows)-1].end = len(p.buf)
		}
		return nil
	})
	return more, err
}

// ReadAll calls fn with the value of each key that is there, in the order of
// keys, which are read in one transaction; i is the key's index. The value is
// valid during the call only, and fn must not use the StateFile.
func (s *StateFile) ReadAll(bucket string, keys [][]byte, fn func(i int, value []byte) error) error {
	err := s.view(func(tx *bolt.Tx) error {
		b := findBucket(tx, bucket)
		if b == nil {
			return nil
		}
		var buf []byte
		for i, key := range keys {
			row := b.rows.Get(key)
			if row == nil {
				continue
			}
			var err error
			if buf, err = b.appendValue(buf[:0], key, row); err != nil {
				return badDisk(s.path, "%v", err)
			}
			if err := fn(i, buf); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read state of group %d: %w", s.group, err)
	}
	return nil
}

// Read returns a copy of the value of a key, nil if it is not there; an empty
// value is not nil.
func (s *StateFile) Read(bucket string, key []byte) ([]byte, error) {
	var value []byte
	err := s.view(func(tx *bolt.Tx) error {
		b := findBucket(tx, bucket)
		if b == nil {
			return nil
		}
		row := b.rows.Get(key)
		if row == nil {
			return nil
		}
		var err error
		if value, err = b.appendValue([]byte{}, key, row); err != nil {
			return badDisk(s.path, "%v", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read state of group %d: %w", s.group, err)
	}
	return value, nil
}
