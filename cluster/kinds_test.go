package cluster

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalmq/shoal/cluster/directory"
	"github.com/shoalmq/shoal/cluster/shard"
	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// TestEveryKindIsTaken: each kind of Proposal and of Command is for shards, for the
// directory, or for both.
func TestEveryKindIsTaken(t *testing.T) {
	expect := func(name protoreflect.FullName, p *shoalpb.Proposal) {
		e := &shoalpb.Entry{Format: stream.FirstFormat, Proposals: []*shoalpb.Proposal{p}}
		if errors.Is(shard.Check(e), stream.ErrNotHere) && errors.Is(directory.Check(e), stream.ErrNotHere) {
			t.Errorf("%s: neither shards nor the directory take it", name)
		}
	}
	eachField(&shoalpb.Proposal{}, func(m proto.Message, name protoreflect.FullName) {
		expect(name, m.(*shoalpb.Proposal))
	})
	eachField(&shoalpb.Command{}, func(m proto.Message, name protoreflect.FullName) {
		expect(name, &shoalpb.Proposal{Batch: &shoalpb.Batch{Node: "x", Commands: []*shoalpb.Command{m.(*shoalpb.Command)}}})
	})
}

// eachField calls f with messages like m that have one field each.
func eachField(m proto.Message, f func(m proto.Message, name protoreflect.FullName)) {
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		one := m.ProtoReflect().New()
		one.Mutable(fields.Get(i))
		f(one.Interface(), fields.Get(i).FullName())
	}
}
