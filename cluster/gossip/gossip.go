package gossip

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// reclaimAfter lets a dead process's name be used from another address.
	// Names are random, so it only matters for one that came back.
	reclaimAfter = time.Second
	// leaveTimeout bounds saying goodbye: others notice a silent end as well.
	leaveTimeout = 500 * time.Millisecond
	// joinFirst and joinLast pace joining, from the first failure on.
	joinFirst = 200 * time.Millisecond
	joinLast  = 5 * time.Second
	// updateTimeout bounds spreading a changed Meta.
	updateTimeout = 2 * time.Second
)

// Config says how a node gossips.
type Config struct {
	// BindAddr is host:port to listen on, TCP and UDP; port 0 takes a free one.
	BindAddr string
	// AdvertiseHost is the name or IP at which others reach this node; empty
	// for the bound address.
	AdvertiseHost string
	// Join are host:port of others; names are resolved at every try.
	Join []string
	// Key encrypts gossip: 16, 24 or 32 bytes, nil for none.
	Key  []byte
	Meta Meta
	Log  *slog.Logger
	// OnChange is called when members come, go or change. It must not block.
	OnChange func()
}

// Member is a living node.
type Member struct{ Meta }

// Gossip is this node's membership. See the package comment.
type Gossip struct {
	log      *slog.Logger
	list     *memberlist.Memberlist
	onChange func()
	join     []string
	cancel   context.CancelFunc
	done     chan struct{}

	mu      sync.Mutex
	meta    Meta
	encoded []byte
	strange map[string]bool // members of other clusters that were logged
}

// Start listens and begins to join.
func Start(c Config) (*Gossip, error) {
	encoded, err := c.Meta.encode()
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g := &Gossip{
		log: c.Log, onChange: c.OnChange, join: c.Join, done: make(chan struct{}),
		meta: c.Meta, encoded: encoded, strange: make(map[string]bool),
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	conf, err := g.config(c)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	if g.list, err = memberlist.Create(conf); err != nil {
		return nil, fmt.Errorf("start gossip on %s: %w", c.BindAddr, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	go g.keepJoined(ctx)
	return g, nil
}

func (g *Gossip) config(c Config) (*memberlist.Config, error) {
	host, portText, err := net.SplitHostPort(c.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", c.BindAddr, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: port: %w", c.BindAddr, err)
	}
	ip, err := resolve(host)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: %w", c.BindAddr, err)
	}
	var id [6]byte
	rand.Read(id[:]) // never fails
	conf := memberlist.DefaultLANConfig()
	conf.Name = c.Meta.Node + "@" + hex.EncodeToString(id[:])
	conf.BindAddr, conf.BindPort, conf.AdvertisePort = ip, port, 0
	conf.DeadNodeReclaimTime = reclaimAfter
	conf.Delegate, conf.Events = delegate{g}, events{g}
	conf.LogOutput = logLines{g.log}
	conf.SecretKey = c.Key
	if c.AdvertiseHost != "" {
		if conf.AdvertiseAddr, err = resolve(c.AdvertiseHost); err != nil {
			g.log.Warn("gossip: the advertised name does not resolve yet, using the bound address", "host", c.AdvertiseHost, "err", err)
			conf.AdvertiseAddr = ""
		} else {
			conf.AdvertisePort = port
		}
	}
	return conf, nil
}

// resolve returns an IP for memberlist, which takes no names.
func resolve(host string) (string, error) {
	if host == "" {
		return "0.0.0.0", nil
	}
	if net.ParseIP(host) != nil {
		return host, nil
	}
	addrs, err := net.LookupHost(host)
	if err != nil {
		return "", err
	}
	return addrs[0], nil
}

// keepJoined joins until every target was reached once, and again whenever this
// node is alone.
func (g *Gossip) keepJoined(ctx context.Context) {
	defer close(g.done)
	wait, reached := joinFirst, len(g.join) == 0
	for {
		if len(g.join) > 0 && (!reached || g.list.NumMembers() == 1) {
			n, err := g.list.Join(g.join)
			reached = n >= len(g.join) && err == nil
			if err != nil {
				g.log.Debug("gossip: join", "reached", n, "err", err)
			}
		}
		if reached || g.list.NumMembers() > 1 {
			wait = joinLast
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
			wait = min(2*wait, joinLast)
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// Addr is the host:port that this node listens on.
func (g *Gossip) Addr() string {
	n := g.list.LocalNode()
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// Members are the living nodes of this cluster, or of none yet, this one among
// them, in name order.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	own := g.meta
	g.mu.Unlock()
	by := map[string]Meta{own.Node: own}
	for _, n := range g.list.Members() {
		m, err := decodeMeta(n.Meta)
		if err != nil || g.isStrange(n.Name, m, own) {
			continue
		}
		if old, ok := by[m.Node]; !ok || m.Boot > old.Boot {
			by[m.Node] = m
		}
	}
	list := make([]Member, 0, len(by))
	for _, m := range by {
		list = append(list, Member{m})
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

// isStrange tells whether m belongs to another cluster, and says so once.
func (g *Gossip) isStrange(name string, m, own Meta) bool {
	if m.ClusterID == "" || own.ClusterID == "" || m.ClusterID == own.ClusterID {
		return false
	}
	g.mu.Lock()
	first := !g.strange[name]
	g.strange[name] = true
	g.mu.Unlock()
	if first {
		g.log.Error("gossip: a node of another cluster is in reach and is ignored: check --join on both sides",
			"peer", m.Node, "its_cluster", m.ClusterID, "own_cluster", own.ClusterID)
	}
	return true
}

// SetMeta changes what others are told; it spreads in the background.
func (g *Gossip) SetMeta(m Meta) {
	encoded, err := m.encode()
	if err != nil {
		g.log.Error("gossip: metadata not changed", "err", err)
		return
	}
	g.mu.Lock()
	g.meta, g.encoded = m, encoded
	g.mu.Unlock()
	go func() {
		if err := g.list.UpdateNode(updateTimeout); err != nil {
			g.log.Debug("gossip: spread metadata", "err", err)
		}
	}()
}

// Close says goodbye and stops.
func (g *Gossip) Close(context.Context) error {
	g.cancel()
	<-g.done
	if err := g.list.Leave(leaveTimeout); err != nil {
		g.log.Debug("gossip: leave", "err", err)
	}
	if err := g.list.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

func (g *Gossip) changed() {
	if g.onChange != nil {
		g.onChange()
	}
}
