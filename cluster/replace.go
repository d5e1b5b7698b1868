package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/shoalmq/shoal/cluster/gossip"
	"github.com/shoalmq/shoal/cluster/raftnet"
	shoalpb "github.com/shoalmq/shoal/proto"
	"github.com/shoalmq/shoal/storage"
)

// replaceDisk moves a bad disk aside, if the directory's leader confirms that
// every group has a quorum without any disk of this node: then nothing that was
// acknowledged is only here. It returns why not.
func (n *Node) replaceDisk(bad *storage.BadDiskError) error {
	if len(n.config.Join) == 0 && n.config.BootstrapExpect == 1 {
		return errors.New("this node is a cluster of its own")
	}
	cluster := ""
	if id, err := storage.ReadIdentity(n.config.DataDir); err == nil {
		if cluster = id.ClusterID; cluster == "" {
			return errors.New("it was not part of a cluster yet: empty the data directory to begin anew")
		}
	}
	a := &asker{n: n, cluster: cluster, log: n.log.With("disk", "bad")}
	if err := a.open(); err != nil {
		return err
	}
	defer a.close()
	if err := a.ask(); err != nil {
		return err
	}
	aside, err := storage.MoveAside(n.config.DataDir, time.Now(), bad.Error())
	if err != nil {
		return err
	}
	n.log.Warn("a bad disk was moved aside: this node begins with an empty one, as a new server; nothing was erased", "aside", aside, "reason", bad)
	return nil
}

// asker reaches the cluster for a node that has no disk to take part with.
type asker struct {
	n       *Node
	cluster string // "" if the disk does not tell any more
	log     *slog.Logger
	gossip  *gossip.Gossip
	pool    *raftnet.Pool
}

// open takes part in gossip as a node without disk or cluster, which nobody
// counts on.
func (a *asker) open() (err error) {
	c := a.n.config
	book := gossip.NewBook(nil)
	pc := raftnet.PoolConfig{Resolve: book.Resolve, TLS: a.n.tls, Log: a.log}
	if c.Net != nil {
		pc.Fault, pc.Dial = c.Net.Fault, c.Net.Dial
	}
	a.pool = raftnet.NewPool(pc)
	a.gossip, err = gossip.Start(gossip.Config{
		BindAddr: c.GossipAddr, AdvertiseHost: c.AdvertiseHost, Join: c.Join, Key: a.n.gossipKey,
		Meta: gossip.Meta{Node: c.NodeID, Draining: true}, Log: a.log,
	})
	if err != nil {
		a.pool.Close()
		return err
	}
	book.Use(a.gossip)
	return nil
}

func (a *asker) close() {
	_ = a.gossip.Close(context.Background())
	_ = a.pool.Close()
}

// ask asks whoever is there until the directory's leader confirms, for a while.
func (a *asker) ask() error {
	ctx, cancel := context.WithTimeout(a.n.tasks.ctx, replaceTimeout)
	defer cancel()
	why := errors.New("no node of the cluster can be reached")
	for ctx.Err() == nil {
		for _, m := range a.gossip.Members() {
			if m.Node == a.n.config.NodeID || m.ClusterID == "" || a.cluster != "" && m.ClusterID != a.cluster {
				continue
			}
			r, err := a.askOne(ctx, m.Node)
			switch {
			case err != nil || r.NotLeader:
			case r.Error != "":
				why = fmt.Errorf("the directory's leader says: %s", r.Error)
			default:
				return nil
			}
		}
		pause(ctx, 10*retryDelay)
	}
	return why
}

func (a *asker) askOne(ctx context.Context, node string) (*shoalpb.OperateReply, error) {
	c, err := a.pool.Conn(node, raftnet.Data)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return shoalpb.NewPeerClient(c).Operate(ctx, &shoalpb.OperateRequest{Node: a.n.config.NodeID})
}

// dispensable tells, at the directory's leader, whether every group has a quorum
// without any disk of node, whose process is down: all that it has helped to
// commit is elsewhere, too.
func (n *Node) dispensable(ctx context.Context, g *group, node string) error {
	shards := uint32(0)
	g.read(func(m machine) { shards = m.(*directoryMachine).Shards() })
	for id := range shards + 1 {
		if err := n.groupWithout(ctx, id, node); err != nil {
			return fmt.Errorf("%s: %w", groupName(id), err)
		}
	}
	return nil
}

// groupWithout waits until a quorum of a group's voters, those on node not
// counted, is alive and has the entries there were at first.
func (n *Node) groupWithout(ctx context.Context, id uint32, node string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout/2)
	defer cancel()
	for first := uint64(0); ; {
		reply, err := n.askReconfigure(ctx, id, shoalpb.ReconfigureRequest_CHANGE_LOOK, "")
		if err != nil {
			return err
		}
		s := standingOf(reply)
		if first == 0 {
			first = s.last
		}
		voters, have := 0, 0
		for _, x := range s.replicas {
			if !x.voter {
				continue
			}
			voters++
			if nodeOf(x.server) != node && x.silent < aliveTimeout && x.matched >= first {
				have++
			}
		}
		if have >= voters/2+1 {
			return nil
		}
		if pause(ctx, 5*retryDelay); ctx.Err() != nil {
			return fmt.Errorf("it has no quorum without node %s: of %d voters %d others are alive and have all entries", node, voters, have)
		}
	}
}
