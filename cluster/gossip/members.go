package gossip

import (
	"cmp"
	"net"
	"slices"
	"strconv"

	"github.com/hashicorp/memberlist"
)

// Member is a live node as gossip sees it.
type Member struct{ Meta }

// entry is a live member.
type entry struct {
	meta  Meta
	known bool   // meta could be read
	seen  uint64 // order of coming
	addr  string // gossip's "ip:port"
}

// Members returns the live nodes, this one among them, without those of other
// clusters, sorted by node and then by when they came. A node with two disks is
// there twice.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	live := []*entry{{meta: g.meta}}
	for name, e := range g.members {
		if name != g.name && e.known && !g.superseded(e) && !g.isForeign(e.meta) {
			live = append(live, e)
		}
	}
	slices.SortFunc(live, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.meta.Node, b.meta.Node), cmp.Compare(a.seen, b.seen))
	})
	all := make([]Member, len(live))
	for i, e := range live {
		all[i] = Member{e.meta}
	}
	return all
}

// superseded says that a later process of the same disk is there, be it this
// one; mu is held.
func (g *Gossip) superseded(e *entry) bool {
	later := func(m Meta) bool {
		return m.Node == e.meta.Node && m.Disk == e.meta.Disk && m.Boot > e.meta.Boot
	}
	for _, other := range g.members {
		if other.known && later(other.meta) {
			return true
		}
	}
	return false
}

func (g *Gossip) isForeign(m Meta) bool {
	return g.meta.ClusterID != "" && m.ClusterID != "" && g.meta.ClusterID != m.ClusterID
}

// set notes a member that has come or changed.
func (g *Gossip) set(n *memberlist.Node) {
	meta, err := decodeMeta(n.Meta)
	g.mu.Lock()
	e := g.members[n.Name]
	if e == nil {
		g.joined++
		e = &entry{seen: g.joined}
		g.members[n.Name] = e
	}
	e.meta, e.known = meta, err == nil
	e.addr = net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	g.mu.Unlock()
	if err != nil {
		g.c.Log.Warn("a gossip member cannot be understood", "member", n.Name, "addr", n.Address(), "err", err)
	}
	g.logForeign()
	g.changed()
}

// logForeign complains of nodes of other clusters, once of each.
func (g *Gossip) logForeign() {
	var found []entry
	g.mu.Lock()
	for _, e := range g.members {
		if e.known && g.isForeign(e.meta) && !g.foreign[e.meta.Node] {
			g.foreign[e.meta.Node] = true
			found = append(found, *e)
		}
	}
	own := g.meta.ClusterID
	g.mu.Unlock()
	for _, e := range found {
		g.c.Log.Error("a node of ANOTHER CLUSTER is in gossip and is not used: check join addresses and gossip keys",
			"peer", e.meta.Node, "addr", e.addr, "its cluster", e.meta.ClusterID, "this cluster", own)
	}
}

func (g *Gossip) remove(n *memberlist.Node) {
	g.mu.Lock()
	delete(g.members, n.Name)
	g.mu.Unlock()
	g.changed()
}

func (g *Gossip) changed() {
	g.calls.RLock()
	defer g.calls.RUnlock()
	// memberlist's timers outlive its Shutdown.
	if g.c.OnChange != nil && g.stop.Err() == nil {
		g.c.OnChange()
	}
}

// address returns the RPC address of a node: of its process that came last.
func (g *Gossip) address(node string) (string, bool) {
	var addr string
	for _, m := range g.Members() {
		if m.Node == node && m.RPCAddr != "" {
			addr = m.RPCAddr
		}
	}
	return addr, addr != ""
}

// events are memberlist's, called under its lock.
type events struct{ g *Gossip }

// NotifyJoin implements memberlist.EventDelegate.
func (e events) NotifyJoin(n *memberlist.Node) { e.g.set(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (e events) NotifyUpdate(n *memberlist.Node) { e.g.set(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (e events) NotifyLeave(n *memberlist.Node) { e.g.remove(n) }

// delegate gives memberlist this node's metadata, and wants nothing else.
type delegate struct{ g *Gossip }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return slices.Clone(d.g.encoded)
}

// NotifyMsg implements memberlist.Delegate.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (delegate) MergeRemoteState([]byte, bool) {}
