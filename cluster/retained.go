package cluster

import (
	"github.com/shoalmq/shoal/broker/session"
	shoalpb "github.com/shoalmq/shoal/proto"
)

// Retained implements broker.Cluster.
func (n *Node) Retained(_ string, from session.RetainedCursor, done func([]*shoalpb.Message, session.RetainedCursor, error)) {
	done(nil, from, session.ErrUnavailable)
}
