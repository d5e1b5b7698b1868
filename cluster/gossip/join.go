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
func (g *Gossip) join(ctx context.Context, port int) {
	if len(g.c.Join) == 0 {
		return
	}
	delay, last := joinFirst, ""
	for {
		missing, err := g.missing(ctx, port)
		if len(missing) > 0 {
			// Errors of single addresses are joined; some may have worked.
			_, joinErr := g.list.Join(missing)
			err = errors.Join(err, joinErr)
		}
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		if text != last && text != "" {
			g.c.Log.Info("join targets are not all reachable, trying on", "err", text)
		}
		last = text
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
		delay = min(2*delay, joinMost)
	}
}

// missing resolves the join targets to the addresses that are not live members.
func (g *Gossip) missing(ctx context.Context, port int) (missing []string, err error) {
	live := make(map[string]bool)
	g.mu.Lock()
	for _, e := range g.members { // this node is one of them
		live[e.addr] = true
	}
	g.mu.Unlock()
	for _, target := range g.c.Join {
		addrs, lookupErr := lookup(ctx, target, port)
		err = errors.Join(err, lookupErr)
		for _, a := range addrs {
			if !live[a] {
				live[a] = true
				missing = append(missing, a)
			}
		}
	}
	return missing, err
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
