package directory

import (
	"bytes"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
	"google.golang.org/protobuf/encoding/protowire"
)

// newer returns p with a field that this build does not know.
func newer(t *testing.T, p *shoalpb.Proposal) *shoalpb.Proposal {
	data, err := p.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	data = protowire.AppendVarint(protowire.AppendTag(data, 200, protowire.VarintType), 1)
	q := &shoalpb.Proposal{}
	if err := q.UnmarshalVT(data); err != nil {
		t.Fatal(err)
	}
	return q
}

// TestUnknownStops: what this build does not know is an error, whatever stands
// before it in the entry, and changes nothing.
func TestUnknownStops(t *testing.T) {
	route := &shoalpb.RouteChange{Filter: "a", Present: true}
	batch := func(c ...*shoalpb.Command) *shoalpb.Proposal {
		b := batchOf(Source{Node: "x", Boot: 1}, 1)
		b.Commands = c
		return &shoalpb.Proposal{Batch: b}
	}
	for name, p := range map[string]*shoalpb.Proposal{
		"empty":          {},
		"two":            {NodeDown: &shoalpb.NodeDown{}, Birth: &shoalpb.Birth{}},
		"of shards":      {Fence: &shoalpb.Fence{}},
		"mixed":          {NodeDown: &shoalpb.NodeDown{}, OutboxAnswered: &shoalpb.OutboxAnswered{}},
		"no node":        {NodeUp: &shoalpb.NodeUp{}},
		"newer":          newer(t, &shoalpb.Proposal{NodeDown: &shoalpb.NodeDown{Node: "x", Boot: 1}}),
		"empty command":  batch(&shoalpb.Command{Route: route}, &shoalpb.Command{}),
		"shards command": batch(&shoalpb.Command{Open: &shoalpb.Open{Client: "c"}}),
		"two commands":   batch(&shoalpb.Command{Route: route, Close: &shoalpb.Close{}}),
	} {
		m := born(t, 1, "x")
		apply(t, m, up("x", 1))
		before, applied := m.Digest(), m.Applied()
		e := &shoalpb.Entry{Format: 1, Proposals: []*shoalpb.Proposal{batch(&shoalpb.Command{Route: route}), p}}
		if results, err := m.Apply(9, e, nil); err == nil {
			t.Errorf("%s: applied with %v", name, results)
		}
		if m.Digest() != before || m.Applied() != applied || matched(m, "a") != "" {
			t.Errorf("%s: the state has changed", name)
		}
	}
	m := New()
	for _, format := range []uint32{0, stream.LastFormat + 1} {
		if _, err := m.Apply(1, &shoalpb.Entry{Format: format}, nil); err == nil {
			t.Errorf("format %d applied", format)
		}
	}
}

// TestOldIndexIsIgnored, though it could not be applied.
func TestOldIndexIsIgnored(t *testing.T) {
	m := born(t, 1, "x")
	if results, err := m.Apply(1, &shoalpb.Entry{Format: 77}, nil); err != nil || results != nil {
		t.Errorf("results %v, error %v", results, err)
	}
}

// TestRestoreRefuses rows that are damaged or of another build.
func TestRestoreRefuses(t *testing.T) {
	m := born(t, 2, "x")
	apply(t, m, up("x", 1))
	apply(t, m, present(Source{Node: "x", Boot: 1}, 1, 2, "a"))
	whole := newFile()
	whole.reopened(t, m)
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 200, protowire.VarintType), 1)
	for bucket, rows := range whole.rows {
		for key, value := range rows {
			for name, damaged := range map[string][]byte{
				"newer": append(bytes.Clone(value), unknown...),
				"empty": {},
				"cut":   value[:len(value)-1],
			} {
				f := newFile()
				for b, rows := range whole.rows {
					for k, v := range rows {
						if err := f.Put(b, []byte(k), v); err != nil {
							t.Fatal(err)
						}
					}
				}
				f.rows[bucket][key] = damaged
				if err := New().Restore(f.scan); err == nil || !strings.Contains(err.Error(), bucket) {
					t.Errorf("%s, %s: error %v", bucket, name, err)
				}
			}
		}
	}
}

// TestFailedCheckpoint: nothing of a checkpoint that failed counts as written,
// and one given up does no harm to the next.
func TestFailedCheckpoint(t *testing.T) {
	m := born(t, 1, "x")
	apply(t, m, up("x", 1))
	apply(t, m, present(Source{Node: "x", Boot: 1}, 1, 1, "a", "b"))
	f := newFile()
	lock := func(f func()) { f() }
	f.fail = 4
	if err := f.checkpoint(m.Freeze(), lock); err != errDisk {
		t.Fatalf("error %v", err)
	}
	f.fail = -1
	abandoned := m.Freeze()
	apply(t, m, present(Source{Node: "x", Boot: 1}, 3, 1, "c"))
	next := m.Freeze()
	abandoned.Done(nil)
	if err := f.checkpoint(next, lock); err != nil {
		t.Fatal(err)
	}
	if again := f.restored(t); again.Digest() != m.Digest() || again.Applied() != m.Applied() {
		t.Error("the file holds something else")
	}
}
