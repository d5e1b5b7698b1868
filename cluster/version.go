package cluster

import "github.com/shoalmq/shoal/cluster/stream"

// entryFormat is the newest format of log entries that every node of the cluster
// reads. The own copy of the directory may be behind the truth: then it is an
// older one.
func (n *Node) entryFormat() uint32 {
	v := n.version.Load()
	if v == 0 { // nothing has changed since the start
		n.readDirectory(func(d *directoryMachine) { v = d.Version() })
	}
	return min(max(v, stream.FirstFormat), stream.LastFormat)
}
