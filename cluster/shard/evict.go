package shard

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// Messages may leave memory once the state file has them: queues of clients
// that are away may be larger than memory. Whether one is in memory is no part
// of the state. Apply never needs one that is not: it moves references, and a
// body keeps what apply asks of it. Readers are told the number of the body and
// read the file, outside of the owner's lock. By then the row may be gone: then
// so is what referred to it, and they read the machine again.

// resident are the bodies that the file and memory have, the oldest first, with
// dead ones between; those of retained messages are there or not.
type resident struct {
	list  []*body
	dead  int
	bytes int // of the living
}

func (r *resident) add(b *body) {
	if b.is(isRegister) || b.is(isListed) {
		return
	}
	b.marks |= isListed
	r.list = append(r.list, b)
	r.bytes += b.bytes()
}

// died notes that nothing refers to b any more. Its message goes when the list
// is cleared of the dead.
func (r *resident) died(b *body) {
	r.dead++
	r.bytes -= b.bytes()
	if r.dead < minDead || r.dead < len(r.list)/2 {
		return
	}
	kept := r.list[:0]
	for _, b := range r.list {
		if b.refs > 0 {
			kept = append(kept, b)
		}
	}
	clear(r.list[len(kept):])
	r.list, r.dead = kept, 0
}

// Evict lets messages leave memory, the oldest first, until it has freed about
// bytes or done enough for one step of the lock. It returns what it freed, and at
// how many of Listed it looked. The owner holds its lock as for Apply.
func (m *Machine) Evict(bytes int) (freed, looked int) {
	r := &m.resident
	bytes = min(bytes, evictStepBytes)
	var pinned []*body
	for ; looked < len(r.list) && looked < evictStep && freed < bytes; looked++ {
		b := r.list[looked]
		r.list[looked] = nil
		switch {
		case b.refs == 0:
			r.dead--
		case m.pinned[b] > 0:
			pinned = append(pinned, b)
		case b.is(isRegister): // back when it is none any more
			b.marks &^= isListed
			r.bytes -= b.bytes()
		default:
			b.marks &^= isListed
			b.sum = contentSum(b.message)
			b.message = nil
			r.bytes -= b.bytes()
			m.gauges.memory -= b.bytes()
			freed += b.bytes()
		}
	}
	r.list = append(r.list[looked:], pinned...)
	return freed, looked
}

// Listed is how many messages Evict has to look at to have seen all.
func (m *Machine) Listed() int { return len(m.resident.list) }

// Memory is about what the messages in memory take, and how much of it Evict
// can free.
func (m *Machine) Memory() (bytes, evictable int) { return m.gauges.memory, m.resident.bytes }

// pin keeps a message in memory because apply will need it.
func (m *Machine) pin(b *body) { m.pinned[b]++ }

func (m *Machine) unpin(b *body) {
	if m.pinned[b]--; m.pinned[b] == 0 {
		delete(m.pinned, b)
	}
}

// Stored is where the message is that a read refers to.
type Stored struct {
	// Body is the number of the message if it has left memory, else 0: its row
	// in the state file is that of BodyRow.
	Body uint64
	// Size is about what the message takes in memory.
	Size int
}

func (b *body) stored() Stored {
	s := Stored{Size: b.bytes()}
	if b.message == nil {
		s.Body = b.seq
	}
	return s
}

// BodyRow is where the state file has a message.
func BodyRow(number uint64) (bucket string, key []byte) { return bucketBodies, bodyKey(number) }

// DecodeBody reads such a row: the message as it was stored, and the shard's
// clock at that time.
func DecodeBody(v []byte) (message *shoalpb.Message, at uint64, err error) {
	row := &shoalpb.BodyRow{}
	if err := decode(v, row); err != nil {
		return nil, 0, err
	}
	if row.Message == nil {
		return nil, 0, fmt.Errorf("body without message: %w", errCorrupt)
	}
	return row.Message, row.AtMs, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// contentSum is a checksum of all of a message, the same wherever it was stored
// and however it is encoded.
func contentSum(m *shoalpb.Message) uint32 {
	var head [4*4 + 3*8]byte
	h := binary.LittleEndian.AppendUint32(head[:0], uint32(len(m.Topic)))
	h = binary.LittleEndian.AppendUint32(h, uint32(len(m.Payload)))
	h = binary.LittleEndian.AppendUint32(h, uint32(len(m.Properties)))
	h = binary.LittleEndian.AppendUint64(h, uint64(m.Qos)<<1|uint64(isSet(m.Retain)))
	if m.ExpiryMs != nil {
		h = binary.LittleEndian.AppendUint64(h, *m.ExpiryMs)
	}
	sum := crc32.Update(0, castagnoli, h)
	for _, part := range [][]byte{[]byte(m.Topic), m.Payload, m.Properties, []byte(m.Publisher)} {
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum
}
