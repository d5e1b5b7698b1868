package shard

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/shoalmq/shoal/cluster/stream"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// fixture drives a machine by single commands of node X's boot 1.
type fixture struct {
	t     testing.TB
	m     *Machine
	eff   *Effects
	index uint64
	n     uint64
	// format of the entries, the newest if 0.
	format uint32
}

func newFixture(t testing.TB, m *Machine) *fixture {
	return &fixture{t: t, m: m, index: m.Applied(), n: m.in.Last("X", 1, 0)}
}

func (f *fixture) propose(p *shoalpb.Proposal) Result {
	f.t.Helper()
	f.index++
	e := &shoalpb.Entry{Format: cmp.Or(f.format, stream.LastFormat), Proposals: []*shoalpb.Proposal{p}}
	results, err := f.m.Apply(f.index, e, f.eff)
	if err != nil {
		f.t.Fatal(err)
	}
	return results[0]
}

// do applies one command and returns its answer, nil for "done".
func (f *fixture) do(c *shoalpb.Command) *shoalpb.Answer {
	f.t.Helper()
	f.n++
	a := f.propose(&shoalpb.Proposal{Batch: &shoalpb.Batch{
		Node: "X", Boot: 1, Target: 1, TargetLife: 1, First: f.n, Answered: f.n - 1, Commands: []*shoalpb.Command{c},
	}}).Batch
	if a.Refusal != shoalpb.Refusal_REFUSAL_NONE {
		f.t.Fatalf("batch refused: %v", a)
	}
	if len(a.Answers) == 0 {
		return nil
	}
	return a.Answers[0]
}

// open opens a durable session and returns its connection.
func (f *fixture) open(client string) uint64 {
	f.t.Helper()
	return f.do(&shoalpb.Command{Open: &shoalpb.Open{Client: client, ExpiryS: 60, Window: 32}}).Open.Conn
}

func (f *fixture) subscribe(client string, conn uint64, filter string, qos uint32) {
	f.t.Helper()
	f.do(&shoalpb.Command{Subscribe: &shoalpb.Subscribe{
		Client: client, Conn: conn, Subscriptions: []*shoalpb.Subscription{{Filter: filter, Qos: qos}},
	}})
}

func (f *fixture) append(topic string, n int) {
	f.t.Helper()
	f.do(&shoalpb.Command{Append: &shoalpb.Append{
		Message: &shoalpb.Message{Topic: topic, Payload: fmt.Appendf(nil, "%d", n), Qos: 1},
	}})
}

func testConfig() Config { return Config{Group: 1, Life: 1} }
