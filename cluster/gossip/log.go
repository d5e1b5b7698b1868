package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// bridge is memberlist's logger: its lines go to log, with the level that
// they name. Its everyday lines and those about members that do not answer are
// for debugging.
func bridge(l *slog.Logger) *log.Logger { return log.New(lines{l}, "", 0) }

type lines struct{ log *slog.Logger }

// Write gets one line.
func (w lines) Write(line []byte) (int, error) {
	text, level := bytes.TrimSpace(line), slog.LevelDebug
	if rest, ok := bytes.CutPrefix(text, []byte("[")); ok {
		if name, after, ok := bytes.Cut(rest, []byte("] ")); ok {
			text = after
			switch string(name) {
			case "WARN", "ERR":
				level = slog.LevelWarn
			}
		}
	}
	text = bytes.TrimPrefix(text, []byte("memberlist: "))
	w.log.Log(context.Background(), level, string(text))
	return len(line), nil
}
