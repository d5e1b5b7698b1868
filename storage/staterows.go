package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Rows is the state being written by a checkpoint. It is valid during the call
// of the function it was given to, and used by one goroutine.
type Rows interface {
	// Put sets the value of a key of 1 to 16 KiB, in a bucket made on first
	// use. It keeps neither key nor value.
	Put(bucket string, key, value []byte) error
	// Delete removes a key; a missing one is no error.
	Delete(bucket string, key []byte) error
}

// stateTx is a checkpoint being written.
type stateTx struct {
	file *boltFile
	tx   *bolt.Tx
	sum  uint64
	open map[string]*stateBucket
	err  error  // the first one; then the sum is no longer right
	buf  []byte // free space for rows, which must stay until the commit
}

// stateBucket is a bucket of the caller's: first rows, and the rest of values
// that need more.
type stateBucket struct {
	name      string
	rows      *bolt.Bucket
	more      *bolt.Bucket // nil if there are no long values
	base, end uint32       // checksums of the names
}

func rowsBucket(name string) []byte { return append([]byte{'r'}, name...) }
func moreBucket(name string) []byte { return append([]byte{'m'}, name...) }

// findBucket returns nil if there is none.
func findBucket(tx *bolt.Tx, name string) *stateBucket {
	rows := tx.Bucket(rowsBucket(name))
	if rows == nil {
		return nil
	}
	return newStateBucket(name, rows, tx.Bucket(moreBucket(name)))
}

func newStateBucket(name string, rows, more *bolt.Bucket) *stateBucket {
	return &stateBucket{
		name: name, rows: rows, more: more,
		base: checksum(rowsBucket(name)), end: checksum(moreBucket(name)),
	}
}

// callerPanic carries a panic of the caller's function through guard.
type callerPanic struct{ value any }

// call runs the caller's function.
func (t *stateTx) call(write func(Rows) error) error {
	defer func() {
		if r := recover(); r != nil {
			panic(callerPanic{r})
		}
	}()
	if err := write(t); err != nil {
		return err
	}
	return t.err
}

// do runs one Put or Delete.
func (t *stateTx) do(what string, fn func() error) error {
	if t.err == nil {
		if err := t.file.guard(fn); err != nil {
			t.err = fmt.Errorf("%s row: %w", what, err)
		}
	}
	return t.err
}

func (t *stateTx) Put(bucket string, key, value []byte) error {
	if len(key) == 0 || len(key) > maxKeyBytes {
		return fmt.Errorf("put row: key of %d bytes", len(key))
	}
	return t.do("put", func() error {
		b, err := t.bucket(bucket)
		if err != nil {
			return err
		}
		old, err := t.takeOut(b, key)
		if err != nil {
			return err
		}
		return t.put(b, key, value, old)
	})
}

func (t *stateTx) Delete(bucket string, key []byte) error {
	return t.do("delete", func() error {
		b, err := t.bucket(bucket)
		if err != nil {
			return err
		}
		old, err := t.takeOut(b, key)
		if err != nil || old == 0 {
			return err
		}
		if err := b.dropParts(key, 1, old); err != nil {
			return err
		}
		return b.rows.Delete(key)
	})
}

// bucket returns the caller's bucket, made on first use.
func (t *stateTx) bucket(name string) (*stateBucket, error) {
	if b := t.open[name]; b != nil {
		return b, nil
	}
	if name == "" {
		return nil, errors.New("bucket without a name")
	}
	rows, err := t.tx.CreateBucketIfNotExists(rowsBucket(name))
	if err != nil {
		return nil, err
	}
	rows.FillPercent = stateFill
	b := newStateBucket(name, rows, t.tx.Bucket(moreBucket(name)))
	t.open[name] = b
	return b, nil
}

// takeOut takes the rows of a key out of the sum and returns how many there
// are, 0 if the key is not there.
func (t *stateTx) takeOut(b *stateBucket, key []byte) (parts int, err error) {
	row := b.rows.Get(key)
	if row == nil {
		return 0, nil
	}
	size, _, err := b.first(key, row)
	if err != nil {
		return 0, badDisk(t.file.path, "%v", err)
	}
	parts = valueParts(size)
	t.sum -= uint64(storedCRC(row))
	for i := 1; i < parts; i++ {
		more := b.part(key, i)
		if more == nil {
			return 0, badDisk(t.file.path, "bucket %s, key %x: part %d is missing", b.name, key, i)
		}
		t.sum -= uint64(storedCRC(more))
	}
	return parts, nil
}

// valueParts is the number of rows of a value of n bytes.
func valueParts(n uint64) int {
	return max(1, int((n+rowBytes-1)/rowBytes))
}

func partKey(key []byte, part int) []byte {
	return binary.BigEndian.AppendUint32(slices.Clone(key), uint32(part))
}

func (b *stateBucket) part(key []byte, part int) []byte {
	if b.more == nil {
		return nil
	}
	return b.more.Get(partKey(key, part))
}

// dropParts deletes the rows from part from to below part to.
func (b *stateBucket) dropParts(key []byte, from, to int) error {
	for i := from; i < to; i++ {
		if err := b.more.Delete(partKey(key, i)); err != nil {
			return err
		}
	}
	return nil
}

// put writes the rows of a value in place of old ones.
func (t *stateTx) put(b *stateBucket, key, value []byte, old int) error {
	size := uint64(len(value))
	n := min(len(value), rowBytes)
	row := t.space(crcBytes + binary.MaxVarintLen64 + n)
	row = binary.AppendUvarint(row[:crcBytes], size)
	row = append(row, value[:n]...)
	t.sum += uint64(sealRow(b.base, key, row))
	if err := b.rows.Put(key, row); err != nil {
		return err
	}
	parts := valueParts(size)
	if parts > 1 && b.more == nil {
		more, err := t.tx.CreateBucketIfNotExists(moreBucket(b.name))
		if err != nil {
			return err
		}
		b.more = more
	}
	for i := 1; i < parts; i++ {
		value = value[n:]
		n = min(len(value), rowBytes)
		row := append(t.space(crcBytes + n)[:crcBytes], value[:n]...)
		k := partKey(key, i)
		t.sum += uint64(sealRow(b.end, k, row))
		b.more.FillPercent = stateFill
		if err := b.more.Put(k, row); err != nil {
			return err
		}
	}
	return b.dropParts(key, parts, old)
}

// space returns n bytes that stay as long as the transaction.
func (t *stateTx) space(n int) []byte {
	const block = 64 << 10
	if len(t.buf) < n {
		t.buf = make([]byte, max(block, n))
	}
	b := t.buf[:n:n]
	t.buf = t.buf[n:]
	return b
}

// first opens the first row of a key and returns the length of the value and
// what is in this row, aliasing it.
func (b *stateBucket) first(key, row []byte) (size uint64, data []byte, err error) {
	payload, ok := openRow(b.base, key, row)
	if !ok {
		return 0, nil, fmt.Errorf("bucket %s, key %x: CRC does not match", b.name, key)
	}
	size, n := binary.Uvarint(payload)
	if n <= 0 || uint64(len(payload)-n) != min(size, rowBytes) {
		return 0, nil, fmt.Errorf("bucket %s, key %x: %d bytes in the first row", b.name, key, len(payload))
	}
	return size, payload[n:], nil
}

// appendValue appends the value of a key, whose first row is row, to dst.
func (b *stateBucket) appendValue(dst, key, row []byte) ([]byte, error) {
	size, data, err := b.first(key, row)
	if err != nil {
		return nil, err
	}
	dst = append(dst, data...)
	for i := 1; i < valueParts(size); i++ {
		k := partKey(key, i)
		data, ok := openRow(b.end, k, b.part(key, i))
		if !ok || uint64(len(data)) != min(rowBytes, size-uint64(i)*rowBytes) {
			return nil, fmt.Errorf("bucket %s, key %x: part %d is damaged", b.name, key, i)
		}
		dst = append(dst, data...)
	}
	return dst, nil
}
