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

// awaitEqual waits until all replicas of each group have applied the same
// entries, when nobody is at work any more, and fails if their states differ.
func (c *cluster) awaitEqual() {
	c.t.Helper()
	eventually(c.t, "all replicas have applied the same", func() error {
		first := map[string]replica{}
		for _, n := range c.nodes {
			list, err := n.digests()
			if err != nil {
				return err
			}
			for _, r := range list {
				other, known := first[r.Group]
				switch {
				case !known:
					first[r.Group] = r
				case r.Applied != other.Applied:
					return fmt.Errorf("%s: node %s has applied %d, another %d", r.Group, n.name, r.Applied, other.Applied)
				case r.Digest != other.Digest:
					c.t.Fatalf("%s at index %d: node %s has another state than others", r.Group, r.Applied, n.name)
				}
			}
		}
		return nil
	})
}
