package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// replica is one node's hash of one group's state.
type replica struct {
	Group   string `json:"group"`
	Applied uint64 `json:"applied"`
	Digest  string `json:"digest"`
}

func (n *node) digests() (list []replica, err error) {
	code, body, err := n.ask("/api/v1/digest")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("digests of node %s: %d %s", n.name, code, body)
	}
	return list, json.Unmarshal([]byte(body), &list)
}

// awaitEqual waits until all nodes have applied the same entries of each group,
// when nobody is at work any more, and fails if their states differ.
func (c *cluster) awaitEqual() {
	c.t.Helper()
	eventually(c.t, "all replicas have applied the same", func() error {
		first, err := c.nodes[0].digests()
		if err != nil {
			return err
		}
		for _, n := range c.nodes[1:] {
			other, err := n.digests()
			if err != nil {
				return err
			}
			if len(other) != len(first) {
				return fmt.Errorf("node %s has %d groups, node %s %d", n.name, len(other), c.nodes[0].name, len(first))
			}
			for i, r := range other {
				switch {
				case r.Group != first[i].Group || r.Applied != first[i].Applied:
					return fmt.Errorf("%s: node %s has %v, node %s %v", r.Group, n.name, r, c.nodes[0].name, first[i])
				case r.Digest != first[i].Digest:
					c.t.Fatalf("%s at index %d: node %s has another state than node %s", r.Group, r.Applied, n.name, c.nodes[0].name)
				}
			}
		}
		return nil
	})
}
