package cluster

import shoalpb "github.com/shoalmq/shoal/proto"

// Redispatch implements broker.Cluster.
func (n *Node) Redispatch(string, *shoalpb.Message) {
	n.metrics.dropped.WithLabelValues("no_member").Inc()
}
