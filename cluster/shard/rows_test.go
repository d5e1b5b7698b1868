package shard

import (
	"bytes"
	"errors"
	"maps"
	"slices"

	mqtt "github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
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

// message reads a message that has left memory.
func (r memRows) message(t failer, body uint64) (*shoalpb.Message, uint64) {
	t.Helper()
	bucket, key := BodyRow(body)
	m, at, err := DecodeBody(r[bucket][string(key)])
	if err != nil {
		t.Fatal(err)
	}
	return m, at
}

// entries reads what conn may be sent.
func (r memRows) entries(t failer, m *Machine, c scriptConn, after uint64, limit int, now uint64) (list []mqtt.Delivery, owner bool) {
	t.Helper()
	owner = m.Entries(c.client, c.conn, after, limit, now, func(d mqtt.Delivery, at Stored) bool {
		if d.Message == nil {
			d.Message, _ = r.message(t, at.Body)
		}
		list = append(list, d)
		return true
	})
	return list, owner
}

// outbox reads all of an outbox above after.
func (r memRows) outbox(t failer, m *Machine, target *shoalpb.Target, after, now uint64) (uint64, []*shoalpb.Command) {
	t.Helper()
	first, list, missing := m.Outbox(target, after, 1<<30, now)
	for _, x := range missing {
		msg, at := r.message(t, x.Body)
		msg = Remaining(msg, at, now)
		if c := list[x.Index]; c.Retain != nil {
			c.Retain.Message = msg
		} else {
			c.Append.Message = msg
		}
	}
	return first, list
}

// evict makes all messages leave memory that may, and makes sure that they did.
func evict(t failer, m *Machine) {
	t.Helper()
	for left := m.Listed(); left > 0; {
		_, looked := m.Evict(1 << 40)
		left -= looked
	}
	left := 0
	for _, b := range m.resident.list {
		if b.refs > 0 && m.pinned[b] == 0 && !b.is(isRegister) {
			left++
		}
	}
	if left > 0 {
		t.Fatal(left, "messages stayed in memory")
	}
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
