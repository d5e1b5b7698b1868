package stream

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unsafe"
)

var (
	errNoKind   = errors.New("no kind that this build knows")
	errTwoKinds = errors.New("two kinds at once")
	// ErrNotHere is the error of a kind that only groups of the other sort take.
	ErrNotHere = errors.New("not for this group")
)

// Kind is one row of Kinds: what a group does with one field of a T.
type Kind[T, F any] struct {
	// Name is the field's name in the .proto file.
	Name string
	// Check tells whether Apply understands the field of m. It is nil if only
	// groups of the other sort take the field.
	Check func(m *T) error
	Apply F

	offset uintptr
}

// Kinds is the table of a message of which exactly one field is set: a Proposal or
// a Command. It has a row for every field of T, those for groups of the other sort
// included: otherwise an entry with two kinds could pass for one. It is immutable.
type Kinds[T, F any] struct {
	rows []Kind[T, F]
}

// NewKinds makes a table of rows. What is met most often should come first. It
// panics if a field of T has no row or several, if a row names no field, or if a
// field is not a message: the program does not start with a table that lacks
// something.
func NewKinds[T, F any](rows ...Kind[T, F]) Kinds[T, F] {
	offsets := offsetsOf(reflect.TypeFor[T]())
	for i := range rows {
		offset, ok := offsets[rows[i].Name]
		if !ok {
			panic(fmt.Sprintf("stream: %s: no field of %s, or twice", rows[i].Name, reflect.TypeFor[T]()))
		}
		rows[i].offset = offset
		delete(offsets, rows[i].Name)
	}
	if len(offsets) > 0 {
		panic(fmt.Sprintf("stream: %s: fields without a row: %v", reflect.TypeFor[T](), offsets))
	}
	return Kinds[T, F]{rows}
}

// offsetsOf finds where the fields of a generated message are, by their names in
// the .proto file.
func offsetsOf(t reflect.Type) map[string]uintptr {
	offsets := map[string]uintptr{}
	for _, f := range reflect.VisibleFields(t) {
		for _, part := range strings.Split(f.Tag.Get("protobuf"), ",") {
			if name, ok := strings.CutPrefix(part, "name="); ok {
				if f.Type.Kind() != reflect.Pointer || f.Type.Elem().Kind() != reflect.Struct {
					panic(fmt.Sprintf("stream: %s of %s is not a message", name, t))
				}
				offsets[name] = f.Offset
			}
		}
	}
	return offsets
}

// has tells whether m has the row's field. Apply asks this for every row and every
// command; a call of a function for each cost a tenth of apply.
func (k *Kind[T, F]) has(m *T) bool {
	return *(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(m), k.offset)) != nil
}

// Of returns the row of the one field of m that is set. It returns an error if
// none is, if several are, or if the field is not for this group. It does not call
// Check.
func (kinds Kinds[T, F]) Of(m *T) (*Kind[T, F], error) {
	var found *Kind[T, F]
	for i := range kinds.rows {
		k := &kinds.rows[i]
		if !k.has(m) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s and %s: %w", found.Name, k.Name, errTwoKinds)
		}
		found = k
	}
	switch {
	case found == nil:
		return nil, errNoKind
	case found.Check == nil:
		return nil, fmt.Errorf("%s: %w", found.Name, ErrNotHere)
	}
	return found, nil
}

// Apply returns what applies m, which Of and Check have accepted.
func (kinds Kinds[T, F]) Apply(m *T) F {
	for i := range kinds.rows {
		if k := &kinds.rows[i]; k.has(m) {
			return k.Apply
		}
	}
	panic("stream: a message is applied that was not checked")
}
