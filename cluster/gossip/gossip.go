package gossip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config says where to listen and whom to look for.
type Config struct {
	// BindAddr is "host:port" to listen on, TCP and UDP; port 0 is any.
	BindAddr string
	// AdvertiseHost is the name or IP that others reach this node at; empty is
	// BindAddr's host, or a private IP of the machine if that is unspecified.
	AdvertiseHost string
	// AdvertisePort is the port that others reach; 0 is the port listened on.
	AdvertisePort int
	// Join are the gossip addresses of others, "host:port" or "host", which is
	// taken with this node's own port. Names may have several addresses.
	Join []string
	// Key encrypts gossip, if not nil: 16, 24 or 32 bytes.
	Key  []byte
	Meta Meta
	Log  *slog.Logger
	// OnChange, if not nil, is called when Members may have changed. It must
	// not block, nor call Gossip.
	OnChange func()
}

// Gossip is this node's part in gossip. It is safe for concurrent use.
type Gossip struct {
	c       Config
	list    *memberlist.Memberlist
	addr    string
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	updated chan struct{} // meta has changed

	mu      sync.Mutex
	name    string
	meta    Meta
	encoded []byte
	members map[string]*entry // by memberlist name, this node's too
	joined  uint64            // counts members that came
	foreign map[string]bool   // nodes of other clusters already logged
}

// Start listens and begins to look for others; it does not wait for them.
func Start(c Config) (*Gossip, error) {
	encoded, err := c.Meta.encode()
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Key != nil {
		if err := checkKey(c.Key); err != nil {
			return nil, fmt.Errorf("gossip: %w", err)
		}
	}
	var random [4]byte
	rand.Read(random[:]) // never fails
	g := &Gossip{
		c: c, meta: c.Meta, encoded: encoded, name: c.Meta.Node + "@" + hex.EncodeToString(random[:]),
		updated: make(chan struct{}, 1), members: make(map[string]*entry), foreign: make(map[string]bool),
	}
	mc, err := g.listConfig()
	if err != nil {
		return nil, err
	}
	if g.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("listen for gossip on %s: %w", c.BindAddr, err)
	}
	g.addr = net.JoinHostPort(mc.BindAddr, strconv.Itoa(mc.BindPort))
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.wg.Go(func() { g.join(ctx, mc.BindPort) })
	g.wg.Go(func() { g.announce(ctx) })
	return g, nil
}

// listConfig is memberlist's LAN timing with quicker healing.
func (g *Gossip) listConfig() (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	host, port, err := net.SplitHostPort(g.c.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	if mc.BindPort, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("gossip address %s: port is not a number", g.c.BindAddr)
	}
	mc.BindAddr = "0.0.0.0"
	if host != "" {
		if mc.BindAddr, err = lookupOne(host); err != nil {
			return nil, fmt.Errorf("gossip address: %w", err)
		}
	}
	mc.AdvertisePort = g.c.AdvertisePort
	if mc.AdvertisePort == 0 {
		mc.AdvertisePort = mc.BindPort
	}
	if g.c.AdvertiseHost != "" {
		// memberlist spreads IPs. Others reach RPC by name in any case.
		if mc.AdvertiseAddr, err = lookupOne(g.c.AdvertiseHost); err != nil {
			g.c.Log.Warn("advertised host has no address yet, gossip uses one of this machine", "host", g.c.AdvertiseHost, "err", err)
		}
	}
	mc.Name, mc.SecretKey = g.name, g.c.Key
	mc.Logger = bridge(g.c.Log)
	mc.Delegate, mc.Events = delegate{g}, events{g}
	mc.TCPTimeout, mc.PushPullInterval, mc.DeadNodeReclaimTime = tcpTimeout, pushPull, reclaimAfter
	mc.EnableCompression = false
	return mc, nil
}

func lookupOne(host string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return "", err
	}
	for _, ip := range ips { // IPv4 first: listeners on 0.0.0.0 have nothing else
		if ip.IP.To4() != nil {
			return ip.IP.String(), nil
		}
	}
	return ips[0].String(), nil
}

// Addr is the "ip:port" listened on.
func (g *Gossip) Addr() string { return g.addr }

// SetMeta tells others what has changed. Metadata that is too long is logged
// and not told.
func (g *Gossip) SetMeta(m Meta) {
	encoded, err := m.encode()
	if err != nil {
		g.c.Log.Error("announce this node", "err", err)
		return
	}
	g.mu.Lock()
	g.meta, g.encoded = m, encoded
	g.mu.Unlock()
	select {
	case g.updated <- struct{}{}:
	default:
	}
}

// announce spreads changed metadata.
func (g *Gossip) announce(ctx context.Context) {
	for {
		select {
		case <-g.updated:
			if err := g.list.UpdateNode(updateTimeout); err != nil {
				g.c.Log.Debug("announce this node", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Close tells the others that this node leaves and stops. It waits for one to
// hear it, until ctx is done or for leaveTimeout.
func (g *Gossip) Close(ctx context.Context) error {
	g.cancel()
	wait := leaveTimeout
	if at, ok := ctx.Deadline(); ok {
		wait = max(time.Millisecond, min(wait, time.Until(at)))
	}
	if err := g.list.Leave(wait); err != nil {
		g.c.Log.Debug("leave gossip", "err", err) // they will notice
	}
	err := g.list.Shutdown()
	g.wg.Wait()
	if err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}
