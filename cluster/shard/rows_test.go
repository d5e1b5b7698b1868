package shard

import (
	"bytes"
	"errors"
	"maps"
	"slices"
)

// memRows is a state file in memory.
type memRows map[string]map[string][]byte

// clone is a transaction's copy: what fails leaves the original.
func (r memRows) clone() memRows {
	c := memRows{}
	for name, b := range r {
		c[name] = maps.Clone(b)
	}
	return c
}

func (r memRows) Put(bucket string, key, value []byte) error {
	if len(key) == 0 || len(key) > 1024 {
		return errors.New("bad key")
	}
	if r[bucket] == nil {
		r[bucket] = map[string][]byte{}
	}
	r[bucket][string(key)] = value
	return nil
}

func (r memRows) Delete(bucket string, key []byte) error {
	delete(r[bucket], string(key))
	return nil
}

// scan hands out slices that do not live beyond the call.
func (r memRows) scan(bucket string, fn func(k, v []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(r[bucket])) {
		key, value := []byte(k), bytes.Clone(r[bucket][k])
		if err := fn(key, value); err != nil {
			return err
		}
		clear(key)
		clear(value)
	}
	return nil
}

// failer is what testing.T and rapid.T share.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func unlocked(f func()) { f() }

// save takes a checkpoint of m on top of rows.
func save(t failer, m *Machine, rows memRows) {
	t.Helper()
	c := m.Freeze()
	if err := c.Write(rows, unlocked); err != nil {
		t.Fatal(err)
	}
	c.Done(nil)
}

// load restores a machine from rows.
func load(t failer, c Config, rows memRows) *Machine {
	t.Helper()
	m := New(c)
	if err := m.Restore(rows.scan); err != nil {
		t.Fatal(err)
	}
	return m
}
