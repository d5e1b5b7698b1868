package cluster

import (
	"fmt"
	"os"
	"testing"
)

// onSizes runs a scenario in a cluster of three nodes, where every node has a
// replica of everything, and in one of five, where the clients are on nodes that
// have no replica of a shard; see widened. All scenarios on both sizes take longer
// than a test run may: those in alwaysOnFive run on five nodes each time, the others
// with SHOAL_CHAOS=long (make chaos).
func onSizes(t *testing.T, f func(t *testing.T, size int)) {
	for _, size := range sizes(t.Name()) {
		t.Run(fmt.Sprintf("%d nodes", size), func(t *testing.T) {
			t.Parallel()
			f(t, size)
		})
	}
}

// alwaysOnFive are the scenarios about whom a node without a replica asks and hears.
var alwaysOnFive = map[string]bool{
	"TestScenarioDiskHangs": true, "TestScenarioFrozenPublisherNode": true, "TestScenarioRouteHeldBack": true,
	"TestScenarioLeaderDiesBeforeRoute": true, "TestScenarioWills": true,
}

func sizes(test string) []int {
	if os.Getenv("SHOAL_CHAOS") == "long" || alwaysOnFive[test] {
		return []int{3, 5}
	}
	return []int{3}
}

// newSized is newScenario with the size given by onSizes.
func newSized(t *testing.T, size, parts int) *testCluster {
	return newScenario(t, 3, parts).widened(size)
}

// widened makes of three nodes five, of which n4 and n5 are drained: they vote in
// the directory, have no replica of a shard, and serve the clients that a scenario
// of three nodes has on n1, n2 and n3.
func (c *testCluster) widened(size int) *testCluster {
	c.t.Helper()
	c.fronts = map[string]string{"n1": "n4", "n2": "n5", "n3": "n4"}
	if size == 3 {
		c.fronts = nil
		return c
	}
	for _, name := range []string{"n4", "n5"} {
		c.grow(name)
	}
	c.ready()
	for _, name := range []string{"n4", "n5"} {
		c.operate("drain", name, true)
	}
	c.placed(3, 5, "n1", "n2", "n3")
	c.size = size
	return c
}

// on is the node of the clients that a scenario of three nodes has on a node.
func (c *testCluster) on(node string) string {
	if c.fronts == nil {
		return node
	}
	return c.fronts[node]
}

// at is that node, running.
func (c *testCluster) at(node string) *testNode { return c.node(c.on(node)) }
