package directory

import (
	"bytes"
	"errors"
	"maps"
	"slices"
)

// file is a state file in memory, with transactions as plain as can be.
type file struct {
	rows map[string]map[string][]byte
	// fail is after how many more rows the writes fail; below 0 never.
	fail int
}

func newFile() *file { return &file{rows: map[string]map[string][]byte{}, fail: -1} }

var errDisk = errors.New("the disk is broken")

func (f *file) write() error {
	if f.fail == 0 {
		return errDisk
	}
	f.fail--
	return nil
}

func (f *file) Put(bucket string, key, value []byte) error {
	if len(key) == 0 || len(key) > 16<<10 {
		return errors.New("bad key")
	}
	if f.rows[bucket] == nil {
		f.rows[bucket] = map[string][]byte{}
	}
	f.rows[bucket][string(key)] = bytes.Clone(value)
	return f.write()
}

func (f *file) Delete(bucket string, key []byte) error {
	delete(f.rows[bucket], string(key))
	return f.write()
}

func (f *file) scan(bucket string, fn func(k, v []byte) error) error {
	for _, key := range slices.Sorted(maps.Keys(f.rows[bucket])) {
		k, v := []byte(key), bytes.Clone(f.rows[bucket][key])
		err := fn(k, v)
		for i := range k {
			k[i] = 0xff // the memory belongs to the file
		}
		for i := range v {
			v[i] = 0xff
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkpoint writes c in one transaction and ends it.
func (f *file) checkpoint(c *Checkpoint, lock func(func())) error {
	before := map[string]map[string][]byte{}
	for bucket, rows := range f.rows {
		before[bucket] = maps.Clone(rows)
	}
	err := c.Write(f, lock)
	if err != nil {
		f.rows = before
	}
	c.Done(err)
	return err
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// restored returns a machine with what the file holds.
func (f *file) restored(t fataler) *Machine {
	t.Helper()
	m := New()
	if err := m.Restore(f.scan); err != nil {
		t.Fatal(err)
	}
	return m
}

// reopened writes m and returns what a restart makes of it, which must be the
// same.
func (f *file) reopened(t fataler, m *Machine) *Machine {
	t.Helper()
	if err := f.checkpoint(m.Freeze(), func(f func()) { f() }); err != nil {
		t.Fatal(err)
	}
	again := f.restored(t)
	if again.Digest() != m.Digest() || again.Applied() != m.Applied() {
		t.Fatalf("a restored machine differs at %d, %d", m.Applied(), again.Applied())
	}
	return again
}
