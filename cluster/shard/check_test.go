package shard

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// full returns an entry that holds every kind of message a shard may get.
func fullEntry() *shoalpb.Entry {
	message := func() *shoalpb.Message { return &shoalpb.Message{Topic: "t", Qos: 1} }
	picks := func() []*shoalpb.TargetPick {
		return []*shoalpb.TargetPick{{Target: &shoalpb.Target{Group: 1}, Pick: &shoalpb.Pick{Share: "$share/g/t"}}}
	}
	return &shoalpb.Entry{Format: stream.FirstFormat, Proposals: []*shoalpb.Proposal{
		{Batch: &shoalpb.Batch{Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: 1, Commands: []*shoalpb.Command{
			{Append: &shoalpb.Append{Message: message(), Picks: []*shoalpb.Pick{{Share: "$share/g/t"}}}},
			{Retain: &shoalpb.Retain{Message: message()}},
			{Open: &shoalpb.Open{Client: "c", ExpiryS: 1, Window: 1, Will: &shoalpb.Will{Message: message()}, Limits: &shoalpb.QueueLimits{Messages: 1}}},
			{Subscribe: &shoalpb.Subscribe{Client: "c", Subscriptions: []*shoalpb.Subscription{{Filter: "t"}}}},
			{Unsubscribe: &shoalpb.Unsubscribe{Client: "c", Filters: []string{"t"}}},
			{Received: &shoalpb.Received{Client: "c", Id: 1, Message: message(), Targets: []*shoalpb.Target{{Group: 1}, {Node: "Z", Boot: 1}}, Picks: picks()}},
			{Released: &shoalpb.Released{Client: "c", Id: 1}},
			{Release: &shoalpb.Release{Client: "c", Seq: 1}},
			{Ack: &shoalpb.Ack{Client: "c", Seqs: []uint64{1}}},
			{Close: &shoalpb.Close{Client: "c"}},
			{Drained: &shoalpb.Drained{Client: "c"}},
			{Confirm: &shoalpb.Confirm{Client: "c"}},
		}}},
		{Fence: &shoalpb.Fence{Number: 1, Nodes: []*shoalpb.NodeBoot{{Node: "X", Boot: 1}}}},
		{Tick: &shoalpb.Tick{WallMs: 1}},
		{Relieve: &shoalpb.Relieve{}},
		{Live: &shoalpb.Live{Client: "c", Conn: 1, Message: message()}},
		{Recover: &shoalpb.Recover{Server: &shoalpb.NodeDisk{Node: "X", Disk: "d"}}},
		{Page: &shoalpb.Page{Client: "c", Replay: 1, Group: 1, Messages: []*shoalpb.Message{message()}}},
		{Dispatch: &shoalpb.Dispatch{Due: 1, Targets: []*shoalpb.Target{{Group: 1}}, Picks: picks()}},
		{OutboxAnswered: &shoalpb.OutboxAnswered{Target: &shoalpb.Target{Group: 2}, UpTo: 1, Refused: []*shoalpb.Answer{{N: 1}}}},
	}}
}

// each visits a message and all messages inside it.
func each(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				each(v.List().Get(i).Message(), visit)
			}
		default:
			each(v.Message(), visit)
		}
		return true
	})
}

// TestFullEntryIsFull: fullEntry has every message that an entry may hold, but
// those that a shard refuses.
func TestFullEntryIsFull(t *testing.T) {
	have := map[protoreflect.FullName]bool{}
	each(fullEntry().ProtoReflect(), func(m protoreflect.Message) { have[m.Descriptor().FullName()] = true })
	refused := map[protoreflect.FullName]bool{}
	for _, m := range []proto.Message{
		&shoalpb.Birth{}, &shoalpb.NodeUp{}, &shoalpb.NodeDown{}, &shoalpb.Place{}, &shoalpb.SetNode{}, &shoalpb.RemoveNode{},
		&shoalpb.RouteChange{}, &shoalpb.OpenAnswer{}, &shoalpb.SubscribeAnswer{}, &shoalpb.UnsubscribeAnswer{},
	} {
		refused[m.ProtoReflect().Descriptor().FullName()] = true
	}
	seen := map[protoreflect.FullName]bool{}
	var look func(d protoreflect.MessageDescriptor)
	look = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || refused[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		if !have[d.FullName()] {
			t.Errorf("fullEntry has no %s", d.FullName())
		}
		for i := range d.Fields().Len() {
			if m := d.Fields().Get(i).Message(); m != nil {
				look(m)
			}
		}
	}
	look((&shoalpb.Entry{}).ProtoReflect().Descriptor())
}

// TestUnknownField puts a field of a later build into each message of an entry
// in turn: every one must be refused, with the state untouched.
func TestUnknownField(t *testing.T) {
	if err := Check(fullEntry()); err != nil {
		t.Fatal(err)
	}
	messages := 0
	each(fullEntry().ProtoReflect(), func(protoreflect.Message) { messages++ })
	for at := range messages {
		e, n, name := fullEntry(), 0, protoreflect.Name("")
		each(e.ProtoReflect(), func(m protoreflect.Message) {
			if n++; n == at+1 {
				m.SetUnknown(protoreflect.RawFields{0x98, 0x06, 0x01}) // field 99
				name = m.Descriptor().Name()
			}
		})
		m := New(testConfig())
		before := m.Digest()
		if _, err := m.Apply(1, e, nil); !errors.Is(err, errUnknownField) {
			t.Errorf("message %d, %s: %v", at, name, err)
		}
		if m.Applied() != 0 || m.Digest() != before {
			t.Errorf("message %d, %s: the state changed", at, name)
		}
	}
}

// TestRefused tries entries that are complete in form and mean nothing.
func TestRefused(t *testing.T) {
	command := func(c *shoalpb.Command) *shoalpb.Proposal {
		return &shoalpb.Proposal{Batch: &shoalpb.Batch{Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: 1, Commands: []*shoalpb.Command{c}}}
	}
	message := &shoalpb.Message{Topic: "t"}
	for name, p := range map[string]*shoalpb.Proposal{
		"nothing":              {},
		"two kinds":            {Batch: &shoalpb.Batch{}, Fence: &shoalpb.Fence{}},
		"of the directory":     {NodeUp: &shoalpb.NodeUp{}},
		"dispatch of nothing":  {Dispatch: &shoalpb.Dispatch{}},
		"dispatch to nobody":   {Dispatch: &shoalpb.Dispatch{Due: 1, Targets: []*shoalpb.Target{{}}}},
		"pick of nothing":      {Dispatch: &shoalpb.Dispatch{Due: 1, Picks: []*shoalpb.TargetPick{{Target: &shoalpb.Target{Group: 1}}}}},
		"pick for nobody":      {Dispatch: &shoalpb.Dispatch{Due: 1, Picks: []*shoalpb.TargetPick{{Pick: &shoalpb.Pick{}}}}},
		"no command":           command(&shoalpb.Command{}),
		"two commands":         command(&shoalpb.Command{Ack: &shoalpb.Ack{}, Release: &shoalpb.Release{}}),
		"a route":              command(&shoalpb.Command{Route: &shoalpb.RouteChange{}}),
		"no message":           command(&shoalpb.Command{Append: &shoalpb.Append{}}),
		"QoS 3":                command(&shoalpb.Command{Append: &shoalpb.Append{Message: &shoalpb.Message{Qos: 3}}}),
		"subscription QoS 3":   command(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{Subscriptions: []*shoalpb.Subscription{{Qos: 3}}}}),
		"window":               command(&shoalpb.Command{Open: &shoalpb.Open{Window: 65536}}),
		"will without message": command(&shoalpb.Command{Open: &shoalpb.Open{Will: &shoalpb.Will{}}}),
		"identifier 0":         command(&shoalpb.Command{Received: &shoalpb.Received{Message: message}}),
		"to the directory":     command(&shoalpb.Command{Received: &shoalpb.Received{Id: 1, Message: message, Targets: []*shoalpb.Target{{}}}}),
		"answered by nobody":   {OutboxAnswered: &shoalpb.OutboxAnswered{}},
		"from an outbox": {Batch: &shoalpb.Batch{Group: 2, SourceLife: 1, Target: 1, TargetLife: 1, First: 1,
			Commands: []*shoalpb.Command{{Open: &shoalpb.Open{Client: "c"}}}}},
	} {
		if err := Check(&shoalpb.Entry{Format: stream.FirstFormat, Proposals: []*shoalpb.Proposal{p}}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := Check(&shoalpb.Entry{Format: stream.LastFormat + 1}); err == nil {
		t.Error("unknown format: taken")
	}
	if err := Check(proto.Clone(fullEntry()).(*shoalpb.Entry)); err != nil {
		t.Error(err)
	}
}
