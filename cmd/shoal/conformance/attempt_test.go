package conformance

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalmq/shoal/broker/packet"
)

// attempt is the testing.T of one try of a rule. It keeps its failures for
// itself.
type attempt struct {
	*testing.T
	failures []string
}

func (a *attempt) Error(args ...any) {
	a.failures = append(a.failures, where()+": "+fmt.Sprint(args...))
}

func (a *attempt) Errorf(format string, args ...any) { a.Error(fmt.Sprintf(format, args...)) }
func (a *attempt) FailNow()                          { runtime.Goexit() }
func (a *attempt) Fatal(args ...any)                 { a.Error(args...); a.FailNow() }
func (a *attempt) Fatalf(format string, args ...any) { a.Errorf(format, args...); a.FailNow() }

// try runs a rule in a scene of its own.
//
// On a machine with too much to do leaders are elected in between, and leases
// lapse. CONNECT may be answered with 0x88 then, publishers may be closed, and QoS
// 0 to a durable session, which goes by its shard leader's memory, may be lost.
// Then the rule is tried again: what must hold over elections is the business of
// cmd/shoal/e2e.
func (r *rule) try(t *testing.T, v packet.Version, keep bool, via transport) {
	for i, end := 1, time.Now().Add(patience); ; i++ {
		before := disturbances()
		a := &attempt{T: t}
		over := make(chan struct{})
		go func() {
			defer close(over)
			r.test(newScene(a, v, keep, via))
		}()
		<-over
		if len(a.failures) == 0 {
			return
		}
		disturbed := disturbances() != before || slices.ContainsFunc(a.failures, unavailable)
		for _, f := range a.failures {
			t.Logf("try %d, disturbed %t: %s", i, disturbed, f)
		}
		if !disturbed || time.Now().After(end) {
			t.FailNow()
		}
		for _, n := range nodes {
			if err := n.awaitReady(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// where is the line of a rule that runs.
func where() string {
	callers := make([]uintptr, 20)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	for {
		f, more := frames.Next()
		if name := filepath.Base(f.File); name != "attempt_test.go" && strings.Contains(f.Function, "/conformance.") {
			return fmt.Sprintf("%s:%d", name, f.Line)
		}
		if !more {
			return "somewhere"
		}
	}
}

// unavailable tells a failure that is the cluster's word that it cannot serve now.
func unavailable(failure string) bool {
	return strings.Contains(failure, packet.CodeServerUnavailable.String()) || strings.Contains(failure, "(0x88") ||
		strings.Contains(failure, "connect: EOF") // a CONNECT whose Open was not answered in time
}

// lapses counts the times that a node of the cluster was found unready.
var lapses atomic.Uint64

// watchLapses looks until ctx is done.
func watchLapses(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ready := make([]bool, len(nodes))
	for ctx.Err() == nil {
		for i, n := range nodes {
			now := n.Ready() == nil
			if ready[i] && !now {
				lapses.Add(1)
			}
			ready[i] = now
		}
		<-tick.C
	}
}

// disturbances changes whenever a leader is elected, or a node has been unready.
func disturbances() uint64 { return lapses.Load() + nodes[0].disturbances() }

// disturbances changes whenever a leader is elected, or this node's process was
// taken for dead.
func (n *node) disturbances() (sum uint64) {
	s := n.Status()
	for _, g := range s.Groups {
		sum += g.Term
	}
	for _, x := range s.Nodes {
		sum += x.Boot
	}
	return sum
}
