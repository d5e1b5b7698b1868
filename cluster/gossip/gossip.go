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
	// AdvertisePort, with AdvertiseHost, is the port that others reach; 0 is the
	// port listened on.
	AdvertisePort int
	// Join are the gossip addresses of others, "host:port" or "host", which is
	// taken with this node's own port. Names may have several addresses.
	Join []string
	// Key encrypts gossip, if not nil: 16, 24 or 32 bytes.
	Key  []byte
	Meta Meta
	Log  *slog.Logger
	// OnChange, if not nil, is called when Members may have changed, by
	// memberlist's goroutines and under its locks: it must not block, nor call
	// Gossip. It is not called once Close has returned.
	OnChange func()
}

// Gossip is this node's part in gossip. It is safe for concurrent use.
type Gossip struct {
	c       Config
	list    *memberlist.Memberlist
	addr    string
	stop    context.Context // done once Close is called
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	updated chan struct{} // meta has changed
	once    sync.Once
	closed  error
	calls   sync.RWMutex // held for reading while OnChange runs

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
	g.stop, g.cancel = context.WithCancel(context.Background())
	if err := g.listen(); err != nil {
		g.cancel()
		return nil, err
	}
	_, port, _ := net.SplitHostPort(g.addr)
	own, _ := strconv.Atoi(port)
	g.wg.Go(func() { g.join(own) })
	g.wg.Go(g.announce)
	return g, nil
}

// listen binds the port and starts memberlist.
func (g *Gossip) listen() error {
	mc, err := g.listConfig()
	if err != nil {
		return err
	}
	tr, err := listen(g.stop, mc.BindAddr, mc.BindPort, mc.Logger)
	if err != nil {
		return fmt.Errorf("listen for gossip on %s: %w", g.c.BindAddr, err)
	}
	mc.Transport, mc.BindPort = tr, tr.GetAutoBindPort()
	if mc.AdvertisePort = g.c.AdvertisePort; mc.AdvertisePort == 0 {
		mc.AdvertisePort = mc.BindPort
	}
	if g.list, err = memberlist.Create(mc); err != nil {
		tr.Shutdown()
		return fmt.Errorf("start gossip on %s: %w", g.c.BindAddr, err)
	}
	g.addr = net.JoinHostPort(mc.BindAddr, strconv.Itoa(mc.BindPort))
	return nil
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
	if g.c.AdvertiseHost != "" {
		// memberlist spreads IPs. Others reach RPC by name in any case.
		if mc.AdvertiseAddr, err = lookupOne(g.c.AdvertiseHost); err != nil {
			g.c.Log.Warn("advertised host has no address yet, gossip uses one of this machine", "host", g.c.AdvertiseHost, "err", err)
		}
	}
	if mc.AdvertiseAddr == "" && mc.BindAddr == net.IPv6unspecified.String() {
		if mc.AdvertiseAddr, err = ownIP(); err != nil {
			return nil, fmt.Errorf("gossip address %s: %w", g.c.BindAddr, err)
		}
	}
	mc.Name, mc.SecretKey = g.name, g.c.Key
	mc.Logger = bridge(g.c.Log)
	mc.Delegate, mc.Events = delegate{g}, events{g}
	mc.TCPTimeout, mc.PushPullInterval, mc.DeadNodeReclaimTime = tcpTimeout, pushPull, reclaimAfter
	mc.EnableCompression = false
	return mc, nil
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
	g.logForeign() // this node may have learnt only now which cluster is its own
	select {
	case g.updated <- struct{}{}:
	default:
	}
}

// announce spreads changed metadata.
func (g *Gossip) announce() {
	for {
		select {
		case <-g.updated:
			// It is queued when UpdateNode returns, also with the error that
			// says it is not sent yet.
			if err := g.list.UpdateNode(updateTimeout); err != nil {
				g.c.Log.Debug("announce this node", "err", err)
			}
		case <-g.stop.Done():
			return
		}
	}
}

// Close tells the others that this node leaves and stops. It waits for one to
// hear it, until ctx's deadline or for leaveTimeout; if ctx is done already, the
// others find out by themselves. Calls after the first do nothing and return
// the same.
func (g *Gossip) Close(ctx context.Context) error {
	g.once.Do(func() { g.closed = g.close(ctx) })
	return g.closed
}

func (g *Gossip) close(ctx context.Context) error {
	g.cancel()
	wait := leaveTimeout
	if at, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(at))
	}
	if ctx.Err() == nil && wait > 0 { // memberlist takes 0 for no limit
		if err := g.list.Leave(wait); err != nil {
			g.c.Log.Debug("leave gossip", "err", err) // they will notice
		}
	}
	err := g.list.Shutdown()
	g.wg.Wait()
	g.calls.Lock() // once the last OnChange has returned
	defer g.calls.Unlock()
	if err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}
