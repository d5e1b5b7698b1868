package gossip

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"
)

// join tries the join targets for ever: those of their addresses that are not
// live members.
func (g *Gossip) join(port int) {
	if len(g.c.Join) == 0 {
		return
	}
	delay, last := joinFirst, ""
	for {
		failed, err := g.attempt(port)
		if g.stop.Err() != nil {
			return
		}
		// Whoever fails is compared, not the text: it has changing ports.
		if now := strings.Join(failed, " "); now != last {
			last = now
			if err != nil {
				g.c.Log.Info("join targets are not all reachable, trying on", "err", strings.ReplaceAll(err.Error(), "\n", "; "))
			}
		}
		select {
		case <-time.After(delay):
		case <-g.stop.Done():
			return
		}
		delay = min(2*delay, joinMost)
	}
}

// attempt resolves each join target and joins its addresses that are not live
// members. It returns the targets and addresses that failed, and why.
func (g *Gossip) attempt(port int) (failed []string, err error) {
	tried := g.liveAddrs()
	for _, target := range g.c.Join {
		addrs, lookupErr := lookup(g.stop, target, port)
		if lookupErr != nil {
			failed, err = append(failed, target), errors.Join(err, lookupErr)
		}
		for _, a := range addrs {
			if tried[a] {
				continue
			}
			tried[a] = true
			if _, joinErr := g.list.Join([]string{a}); joinErr != nil {
				if one := errors.Unwrap(joinErr); one != nil {
					joinErr = one // without the list around it
				}
				failed, err = append(failed, a), errors.Join(err, joinErr)
			}
			if g.stop.Err() != nil {
				return failed, err
			}
		}
	}
	return failed, err
}

// liveAddrs are the gossip addresses of live members, this node's too.
func (g *Gossip) liveAddrs() map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	live := make(map[string]bool, len(g.members))
	for _, e := range g.members {
		live[e.addr] = true
	}
	return live
}

// lookup returns the addresses of "host:port", or of "host" with port.
func lookup(ctx context.Context, target string, port int) (addrs []string, err error) {
	host, p, err := net.SplitHostPort(target)
	if err != nil {
		host, p = strings.Trim(target, "[]"), strconv.Itoa(port)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, ip := range ips {
		addrs = append(addrs, net.JoinHostPort(ip.String(), p))
	}
	return addrs, nil
}
