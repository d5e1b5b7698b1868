package shard

import (
	"cmp"
	"fmt"
	"slices"
)

// Rows is where a checkpoint is written: one transaction of the state file.
// Neither key nor value is changed after the call.
type Rows interface {
	Put(bucket string, key, value []byte) error
	Delete(bucket string, key []byte) error
}

// Checkpoint is the state of a Machine at one index, as the difference to the
// checkpoint before. There is one at a time.
type Checkpoint struct {
	m          *Machine
	generation uint32
	meta       []byte
	// dirty is shared with Apply, under the owner's lock.
	dirty []dirtyRow
	// bodies are those that the rows refer to and the file does not have. It is
	// complete when all dirty rows are encoded.
	bodies       []*body
	deadBodies   []uint64
	outboxes     []frozenOutbox
	deadOutboxes []*outbox
	refs, bytes  int
}

// frozenOutbox is what changed in one outbox: the file's rows up to base go, and
// entries come.
type frozenOutbox struct {
	outbox             *outbox
	fileBase, fileNext uint64 // rows in the file
	base, next         uint64 // rows after the checkpoint
	entries            []outboxEntry
}

// Freeze begins a checkpoint of the state at Applied. It takes little time.
// Done must be called before the next one.
func (m *Machine) Freeze() *Checkpoint {
	if m.file.writing != nil {
		panic("shard: Freeze during a checkpoint")
	}
	c := &Checkpoint{
		m:            m,
		generation:   m.file.generation,
		meta:         m.metaRow(),
		dirty:        m.file.dirty,
		deadBodies:   m.file.deadBodies,
		deadOutboxes: m.file.deadOutboxes,
		refs:         m.file.refs,
		bytes:        m.file.bytes,
	}
	for _, o := range m.outboxes {
		c.freezeOutbox(o)
	}
	m.file = file{generation: c.generation + 1, lastSegment: m.file.lastSegment, writing: c}
	return c
}

// freezeOutbox copies the entries that the file lacks: Apply may answer them
// meanwhile.
func (c *Checkpoint) freezeOutbox(o *outbox) {
	f := frozenOutbox{outbox: o, fileBase: o.fileBase, fileNext: o.fileNext, base: o.base, next: o.next()}
	if f.fileBase == f.base && f.fileNext == f.next {
		return
	}
	from := max(f.fileNext, f.base)
	f.entries = slices.Clone(o.entries[from-o.base:])
	for _, e := range f.entries {
		if e.body != nil {
			c.use(e.body)
		}
	}
	c.outboxes = append(c.outboxes, f)
}

// use notes that a row of the checkpoint refers to b.
func (c *Checkpoint) use(b *body) {
	if b.inFile == notInFile {
		b.inFile = beingWritten
		c.bodies = append(c.bodies, b)
	}
}

// encode saves a frozen row. The owner's lock is held. Once it is done, the row
// belongs to Write alone.
func (c *Checkpoint) encode(d *dirtyRow) {
	if d.done || d.object == nil {
		return
	}
	d.value = d.object.row(c.use)
	d.done = true
}

// Write writes the checkpoint to rows. lock must call its argument with the
// machine's lock held, as for Apply; Write uses it in short steps and does no
// I/O under it.
func (c *Checkpoint) Write(rows Rows, lock func(func())) error {
	if err := c.writeDirty(rows, lock); err != nil {
		return err
	}
	// All rows are encoded: c.bodies does not change any more.
	slices.SortFunc(c.bodies, func(a, b *body) int { return cmp.Compare(a.seq, b.seq) })
	for _, b := range c.bodies {
		if err := rows.Put(bucketBodies, bodyKey(b.seq), b.row()); err != nil {
			return fmt.Errorf("write body: %w", err)
		}
	}
	for _, seq := range c.deadBodies {
		if err := rows.Delete(bucketBodies, bodyKey(seq)); err != nil {
			return fmt.Errorf("delete body: %w", err)
		}
	}
	if err := c.writeOutboxes(rows); err != nil {
		return err
	}
	if err := rows.Put(bucketMeta, metaKey, c.meta); err != nil {
		return fmt.Errorf("write meta row: %w", err)
	}
	return nil
}

// writeDirty writes sessions and filters.
func (c *Checkpoint) writeDirty(rows Rows, lock func(func())) error {
	for rest := c.dirty; len(rest) > 0; {
		n := 0
		lock(func() {
			for size := 0; n < len(rest) && n < writeRows && size < writeBytes; n++ {
				c.encode(&rest[n])
				size += len(rest[n].value)
			}
		})
		for i := range rest[:n] {
			if err := writeRow(rows, &rest[i]); err != nil {
				return err
			}
		}
		rest = rest[n:]
	}
	return nil
}

func writeRow(rows Rows, d *dirtyRow) error {
	key := rowKey(d.name, d.number)
	if d.object == nil {
		if err := rows.Delete(d.bucket, key); err != nil {
			return fmt.Errorf("delete from %s: %w", d.bucket, err)
		}
		return nil
	}
	if err := rows.Put(d.bucket, key, d.value); err != nil {
		return fmt.Errorf("write to %s: %w", d.bucket, err)
	}
	d.value = nil
	return nil
}

func (c *Checkpoint) writeOutboxes(rows Rows) error {
	for _, o := range c.deadOutboxes {
		if err := deleteEntries(rows, o, o.fileBase, o.fileNext); err != nil {
			return err
		}
	}
	for _, f := range c.outboxes {
		if err := deleteEntries(rows, f.outbox, f.fileBase, min(f.fileNext, f.base)); err != nil {
			return err
		}
		first := f.next - uint64(len(f.entries))
		for i, e := range f.entries {
			if err := rows.Put(bucketOutbox, outboxKey(f.outbox.target, first+uint64(i)), e.row()); err != nil {
				return fmt.Errorf("write outbox entry: %w", err)
			}
		}
	}
	return nil
}

func deleteEntries(rows Rows, o *outbox, from, to uint64) error {
	for n := from; n < to; n++ {
		if err := rows.Delete(bucketOutbox, outboxKey(o.target, n)); err != nil {
			return fmt.Errorf("delete outbox entry: %w", err)
		}
	}
	return nil
}

// Done ends the checkpoint: err nil says that what Write wrote is on disk. After
// an error the next checkpoint writes it too. The caller holds the lock as for
// Apply. Calls after the first do nothing.
func (c *Checkpoint) Done(err error) {
	m := c.m
	if m.file.writing != c {
		return
	}
	m.file.writing = nil
	if err != nil {
		c.takeBack()
		return
	}
	for _, b := range c.bodies {
		b.inFile = inFile
		if b.refs == 0 { // consumed since Freeze
			m.file.deadBodies = append(m.file.deadBodies, b.seq)
		} else {
			m.resident.add(b)
		}
	}
	for _, f := range c.outboxes {
		f.outbox.fileBase, f.outbox.fileNext = f.base, f.next
	}
}

// takeBack makes everything dirty again that the checkpoint should have written.
func (c *Checkpoint) takeBack() {
	m := c.m
	for _, b := range c.bodies {
		b.inFile = notInFile
	}
	m.file.deadBodies = append(m.file.deadBodies, c.deadBodies...)
	m.file.deadOutboxes = append(m.file.deadOutboxes, c.deadOutboxes...)
	m.file.refs += c.refs
	m.file.bytes += c.bytes
	m.undirty(c.dirty, c.generation)
}
