package cluster

import (
	"github.com/shoalmq/shoal/cluster/directory"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Redispatch implements broker.Cluster.
func (n *Node) Redispatch(string, *shoalpb.Message) {
	n.metrics.dropped.WithLabelValues("no_member").Inc()
}

// share returns where a Shared Subscription has members.
func (n *Node) share(name string) (s directory.ShareTargets) {
	n.readDirectory(func(d *directoryMachine) { s = d.Share(name) })
	return s
}
