package cluster

// Elsewhere is the MQTT address of another node that is up and stays, each time
// the next; empty if there is none.
func (n *Node) Elsewhere() string {
	leaves := make(map[string]bool)
	for _, m := range n.gossip.Members() {
		leaves[m.Node] = m.Draining
	}
	var addrs []string
	n.readDirectory(func(d *directoryMachine) {
		for _, x := range d.Nodes() {
			if name := x.Info.Node; name != n.config.NodeID && x.Up && !x.Drained && !x.Leaving && !leaves[name] && x.Info.MqttAddr != "" {
				addrs = append(addrs, x.Info.MqttAddr)
			}
		}
	})
	if len(addrs) == 0 {
		return ""
	}
	return addrs[int(n.elsewhere.Add(1))%len(addrs)]
}
