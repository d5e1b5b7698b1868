package cluster

import (
	"fmt"
	"strings"

	"github.com/hashicorp/raft"
)

func groupName(id uint32) string {
	if id == 0 {
		return "directory"
	}
	return fmt.Sprintf("shard-%d", id)
}

// nodeOf is the node of a server "node/disk".
func nodeOf(server string) string {
	node, _, _ := strings.Cut(server, "/")
	return node
}

// servers are the voters of a group's first configuration: ServerID and
// ServerAddress are both "node/disk", so that a wiped disk is another server.
func servers(members []string) []raft.Server {
	if len(members) == 0 {
		return nil
	}
	list := make([]raft.Server, len(members))
	for i, m := range members {
		list[i] = raft.Server{ID: raft.ServerID(m), Address: raft.ServerAddress(m)}
	}
	return list
}
