package directory

import (
	"fmt"
	"maps"
	"slices"
)

// Rows is a state file open for one write transaction. Keys and values are the
// caller's again after the call. Delete of a missing row is no error.
type Rows interface {
	Put(bucket string, key, value []byte) error
	Delete(bucket string, key []byte) error
}

// Checkpoint is the state at one index, on its way to the state file: what
// changed since the checkpoint before.
type Checkpoint struct {
	m     *Machine
	small []row
	// todo are the filters to write; it does not change.
	todo map[string]struct{}
	// done is the highest filter already encoded: Write goes up.
	done string
	// saved are rows of todo as they were at the checkpoint's index, of filters
	// that changed since and were not encoded yet.
	saved map[string]row
	// alive are the targets that counted at the checkpoint's index. Their ids
	// mean the same in every filter that did not change since: an id is given
	// away only after it left all filters.
	alive []uint64
}

// Freeze fixes a checkpoint at Applied. It takes about as long as an apply. The
// caller calls Write, then Done. A checkpoint not done when the next one is
// frozen is given up.
func (m *Machine) Freeze() *Checkpoint {
	if m.frozen != nil {
		m.frozen.Done(fmt.Errorf("another checkpoint was frozen"))
	}
	c := &Checkpoint{
		m:     m,
		small: m.smallRows(m.applied),
		todo:  m.dirty,
		saved: map[string]row{},
		alive: slices.Clone(m.routes.alive),
	}
	m.dirty = map[string]struct{}{}
	m.frozen = c
	return c
}

// Write writes the checkpoint. It is called once, by any goroutine, beside
// Apply and Match; lock runs a function while the caller holds the machine for
// it.
func (c *Checkpoint) Write(rows Rows, lock func(func())) error {
	for _, r := range c.small {
		if err := put(rows, r); err != nil {
			return err
		}
	}
	// In order of keys, as a B+tree likes it. todo may be read without the lock.
	for page := range slices.Chunk(slices.Sorted(maps.Keys(c.todo)), c.m.checkpointPage) {
		var encoded []row
		lock(func() { encoded = c.encode(page) })
		for _, r := range encoded {
			if err := put(rows, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func put(rows Rows, r row) error {
	if r.value == nil {
		return rows.Delete(r.bucket, r.key)
	}
	return rows.Put(r.bucket, r.key, r.value)
}

func (c *Checkpoint) encode(page []string) []row {
	encoded := make([]row, 0, len(page))
	for _, filter := range page {
		r, ok := c.saved[filter]
		if !ok {
			r = c.routeRow(filter)
		}
		delete(c.saved, filter)
		encoded = append(encoded, r)
	}
	c.done = page[len(page)-1]
	return encoded
}

func (c *Checkpoint) routeRow(filter string) row {
	r := &c.m.routes
	if sh := r.share(filter); sh != nil {
		return row{bucketRoutes, routeKey(filter), encodeRoute(filter, sh.rows(c.alive))}
	}
	s, _ := r.trie.Lookup(filter)
	return row{bucketRoutes, routeKey(filter), encodeRoute(filter, r.rows(s, c.alive))}
}

// Done ends the checkpoint. With an error nothing of it is taken for written:
// the next one contains it.
func (c *Checkpoint) Done(err error) {
	if c.m.frozen != c {
		return
	}
	c.m.frozen = nil
	if err != nil {
		maps.Copy(c.m.dirty, c.todo)
	}
}

// touch is called before the routes of filter change.
func (m *Machine) touch(filter string) {
	m.dirty[filter] = struct{}{}
	if m.frozen != nil {
		m.frozen.save(filter)
	}
}

// save keeps the row of filter as it is, unless it is encoded or kept already.
func (c *Checkpoint) save(filter string) {
	if _, mine := c.todo[filter]; !mine || filter <= c.done {
		return
	}
	if _, kept := c.saved[filter]; !kept {
		c.saved[filter] = c.routeRow(filter)
	}
}

// DirtyRefs returns how many rows of routes the next checkpoint would write.
func (m *Machine) DirtyRefs() int { return len(m.dirty) }
