package gossip

import (
	"context"
	"log/slog"
	"strings"

	"github.com/hashicorp/memberlist"
)

// delegate gives memberlist this node's metadata; nothing else is gossiped.
type delegate struct{ g *Gossip }

func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.encoded
}

func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

// events tells the owner that members have changed.
type events struct{ g *Gossip }

func (e events) NotifyJoin(*memberlist.Node)   { e.g.changed() }
func (e events) NotifyLeave(*memberlist.Node)  { e.g.changed() }
func (e events) NotifyUpdate(*memberlist.Node) { e.g.changed() }

// logLines bridges memberlist's log: errors as warnings, the rest as debug,
// since it repeats what a node that is down makes it find out.
type logLines struct{ l *slog.Logger }

func (w logLines) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	if strings.Contains(text, "[ERR]") && !strings.Contains(text, "Failed to send") {
		level = slog.LevelWarn
	}
	if _, after, ok := strings.Cut(text, "memberlist: "); ok {
		text = after
	}
	w.l.Log(context.Background(), level, "gossip: "+text)
	return len(line), nil
}
