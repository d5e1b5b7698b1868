package directory

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestEveryKindHasARow: whatever field of a Proposal or a Command is set, as the
// descriptors know them, its row is found, and it can be checked and applied unless
// it is not for this group.
func TestEveryKindHasARow(t *testing.T) {
	everyFieldHasARow(t, proposalKinds, func(f proposalApply) bool { return f != nil })
	everyFieldHasARow(t, commandKinds, func(f commandApply) bool { return f != nil })
}

func everyFieldHasARow[T, F any, M interface {
	*T
	proto.Message
}](t *testing.T, kinds stream.Kinds[T, F], canApply func(F) bool) {
	fields := M(new(T)).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		m, fd := M(new(T)), fields.Get(i)
		m.ProtoReflect().Mutable(fd)
		kind, err := kinds.Of((*T)(m))
		switch {
		case errors.Is(err, stream.ErrNotHere):
		case err != nil:
			t.Errorf("%s: %v", fd.FullName(), err)
		case kind.Name != string(fd.Name()) || !canApply(kind.Apply) || !canApply(kinds.Apply((*T)(m))):
			t.Errorf("%s: found the row %q", fd.FullName(), kind.Name)
		}
	}
}

// TestNoTwoKinds: no two kinds at once are taken for one.
func TestNoTwoKinds(t *testing.T) {
	eachTwo(&shoalpb.Proposal{}, func(m proto.Message, names string) {
		expectRefused(t, m.(*shoalpb.Proposal), names)
	})
	eachTwo(&shoalpb.Command{}, func(m proto.Message, names string) {
		expectRefused(t, &shoalpb.Proposal{Batch: &shoalpb.Batch{
			Node: "x", Boot: 1, Target: 0, TargetLife: 1, First: 1, Commands: []*shoalpb.Command{m.(*shoalpb.Command)},
		}}, names)
	})
}

// expectRefused expects that neither Check nor Apply takes p, and that nothing panics.
func expectRefused(t *testing.T, p *shoalpb.Proposal, names string) {
	t.Helper()
	e := &shoalpb.Entry{Format: stream.FirstFormat, Proposals: []*shoalpb.Proposal{p}}
	if Check(e) == nil {
		t.Errorf("%s: taken for one", names)
	}
	if _, err := New().Apply(1, e, nil); err == nil {
		t.Errorf("%s: applied", names)
	}
}

// eachTwo calls f with messages like m that have two fields, filled so that either
// alone would be taken.
func eachTwo(m proto.Message, f func(m proto.Message, names string)) {
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		for j := range i {
			two := m.ProtoReflect().New()
			for _, fd := range []protoreflect.FieldDescriptor{fields.Get(i), fields.Get(j)} {
				fill(two.Mutable(fd).Message(), 2)
			}
			f(two.Interface(), string(fields.Get(i).Name()+" and "+fields.Get(j).Name()))
		}
	}
}

// fill makes every message in m, to a depth, and sets numbers to 1.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch fd := fields.Get(i); {
		case fd.IsList():
		case fd.Kind() == protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(1))
		case fd.Kind() == protoreflect.Uint64Kind:
			m.Set(fd, protoreflect.ValueOfUint64(1))
		case fd.Message() != nil && depth > 0:
			fill(m.Mutable(fd).Message(), depth-1)
		}
	}
}
