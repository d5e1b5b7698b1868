package shard

// file is what the machine knows of its state file: what has changed since the
// last checkpoint.
type file struct {
	// generation counts checkpoints, from 1. An object belongs to the dirty
	// list of the generation in which it changed last.
	generation uint32
	dirty      []dirtyRow
	// lastSegment is the highest number of a segment's row.
	lastSegment uint64
	// deadBodies are rows of the file that nothing refers to any more;
	// deadOutboxes are outboxes to fenced processes, whose rows are to go.
	deadBodies   []uint64
	deadOutboxes []*outbox
	refs, bytes  int
	// writing is the checkpoint between Freeze and Done, or nil.
	writing *Checkpoint
}

// tracked is an object's place in a dirty list.
type tracked struct {
	generation uint32 // 0: never changed since it was restored
	place      uint32
}

func (t *tracked) track() *tracked { return t }

// stored is an object with a row of its own: a session, a segment of its queue, a
// filter.
type stored interface {
	track() *tracked
	// key is what rowKey takes, and does not change.
	key() (bucket, name string, number uint64)
	// row encodes the object and tells use which bodies the row refers to.
	row(use func(*body)) []byte
}

// dirtyRow is one row to be written.
type dirtyRow struct {
	object stored // nil: the row is to be deleted
	bucket string
	name   string
	number uint64
	// value is the encoded row of a frozen object that had to change before it
	// was written.
	value []byte
	done  bool // encoded, into value or into the file
}

// touch must come before every change of an object. It puts the object on the
// dirty list, and saves its row if it is frozen and not yet written.
func (m *Machine) touch(o stored) {
	t := o.track()
	if t.generation == m.file.generation {
		return
	}
	if c := m.file.writing; c != nil && t.generation == c.generation {
		c.encode(&c.dirty[t.place])
	}
	m.addDirty(o)
}

func (m *Machine) addDirty(o stored) {
	t := o.track()
	t.generation, t.place = m.file.generation, uint32(len(m.file.dirty))
	bucket, name, number := o.key()
	m.file.dirty = append(m.file.dirty, dirtyRow{object: o, bucket: bucket, name: name, number: number})
	m.file.refs++
}

// forget marks the row of an object for deletion. The object must not be used
// any more.
func (m *Machine) forget(o stored) {
	m.touch(o)
	m.file.dirty[o.track().place].object = nil
}

// undirty takes the rows of a failed checkpoint back in front of what has
// changed since: a row that was deleted and one that was made anew under its
// name must stay in order.
func (m *Machine) undirty(failed []dirtyRow, generation uint32) {
	since := m.file.dirty
	m.file.dirty = nil
	for _, d := range failed {
		switch {
		case d.object == nil:
			m.file.dirty = append(m.file.dirty, dirtyRow{bucket: d.bucket, name: d.name, number: d.number})
		case d.object.track().generation == generation:
			m.addDirty(d.object)
		}
	}
	for _, d := range since {
		if d.object != nil {
			d.object.track().place = uint32(len(m.file.dirty))
		}
		m.file.dirty = append(m.file.dirty, d)
	}
}
