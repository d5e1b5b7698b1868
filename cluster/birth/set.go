package birth

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// voidMark before the members makes a stored promise void. No member is
// written like this.
const voidMark = "void"

// promise is what a disk has stored: members is nil without a promise.
type promise struct {
	members []string
	void    bool
}

func parsePromise(stored []string) promise {
	if len(stored) > 0 && stored[0] == voidMark {
		return promise{stored[1:], true}
	}
	return promise{members: stored}
}

func (p promise) stored() []string {
	if p.void {
		return append([]string{voidMark}, p.members...)
	}
	return p.members
}

// to says that p is a promise to members, void or not.
func (p promise) to(members []string) bool {
	return len(p.members) > 0 && slices.Equal(p.members, members)
}

// split takes "node/disk" apart.
func split(member string) (node, disk string) {
	node, disk, _ = strings.Cut(member, "/")
	return
}

// checkSet refuses what is not a set of n members with self.
func checkSet(members []string, n int, self string) error {
	if len(members) != n || n > maxMembers {
		return fmt.Errorf("%d members, but this node expects %d", len(members), n)
	}
	if !slices.Contains(members, self) {
		return fmt.Errorf("%s is not a member", self)
	}
	nodes := make(map[string]bool)
	for i, m := range members {
		node, disk := split(m)
		if node == "" || disk == "" || nodes[node] || i > 0 && members[i-1] >= m {
			return fmt.Errorf("members are not a sorted set of node/disk: %q", members)
		}
		nodes[node] = true
	}
	return nil
}

// clusterID is the id of the cluster that members found; nonce is that of the
// first one.
func clusterID(members []string, nonce string) string {
	h := sha256.New()
	fmt.Fprintf(h, "shoal birth 1\n%q\n%q\n", nonce, members)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
