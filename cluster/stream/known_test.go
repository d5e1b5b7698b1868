package stream

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	shoalpb "github.com/shoalmq/shoal/proto"
)

// populate puts one message into every field that holds messages, as the
// descriptors know them, so that a field added later is here too. A type within
// itself is left empty.
func populate(m protoreflect.Message, within map[protoreflect.FullName]bool) {
	name := m.Descriptor().FullName()
	if within[name] {
		return
	}
	within[name] = true
	defer delete(within, name)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.Message() == nil:
		case fd.IsMap():
			panic(fd.FullName() + " is a map, whose order differs between replicas")
		case fd.IsList():
			populate(m.Mutable(fd).List().AppendMutable().Message(), within)
		default:
			populate(m.Mutable(fd).Message(), within)
		}
	}
}

// visit calls f for a message and all within it, until f returns false.
func visit(m protoreflect.Message, f func(protoreflect.Message) bool) bool {
	if !f(m) {
		return false
	}
	goOn := true
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := 0; i < v.List().Len() && goOn; i++ {
				goOn = visit(v.List().Get(i).Message(), f)
			}
		default:
			goOn = visit(v.Message(), f)
		}
		return goOn
	})
	return goOn
}

// TestEveryMessageIsChecked: wherever in an entry a later build puts a new
// field, this one sees it.
func TestEveryMessageIsChecked(t *testing.T) {
	e := &shoalpb.Entry{}
	populate(e.ProtoReflect(), map[protoreflect.FullName]bool{})
	if err := CheckKnown(e); err != nil {
		t.Fatal(err)
	}
	messages, types := 0, map[protoreflect.FullName]bool{}
	visit(e.ProtoReflect(), func(m protoreflect.Message) bool {
		messages++
		types[m.Descriptor().FullName()] = true
		m.SetUnknown(protoreflect.RawFields{0xc0, 0x3e, 0x01}) // field 1000
		if CheckKnown(e) == nil {
			t.Errorf("%s with an unknown field is taken", m.Descriptor().FullName())
		}
		m.SetUnknown(nil)
		return true
	})
	if len(types) < 30 {
		t.Errorf("tried %d messages of %d types only", messages, len(types))
	}
	t.Logf("%d messages of %d types", messages, len(types))
}
