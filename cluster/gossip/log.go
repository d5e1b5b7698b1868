package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
)

// quiet begins memberlist's warnings about members that do not answer, which
// is daily life while one restarts, and which OnChange tells better.
var quiet = []string{
	"Failed to send", "Failed fallback TCP ping", "Failed to forward ack", "Push/Pull with",
	"Got ping for unexpected node", "Refuting an alive message",
}

// bridge is memberlist's logger: its warnings and errors are warnings, each
// kind at most once in warnEvery; all else is for debugging.
func bridge(l *slog.Logger) *log.Logger {
	return log.New(&lines{log: l, last: make(map[string]time.Time)}, "", 0)
}

type lines struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[string]time.Time // when a kind of warning was last logged as one
}

// Write gets one line.
func (w *lines) Write(line []byte) (int, error) {
	text, level := strings.TrimSpace(string(line)), slog.LevelDebug
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, after, ok := strings.Cut(rest, "] "); ok {
			text = strings.TrimPrefix(after, "memberlist: ")
			if (name == "WARN" || name == "ERR" || name == "ERROR") && w.loud(text) {
				level = slog.LevelWarn
			}
		}
	}
	w.log.Log(context.Background(), level, text)
	return len(line), nil
}

// loud says that a warning is to be seen. Its kind is its text without digits:
// a peer with the wrong key comes from another port each time.
func (w *lines) loud(text string) bool {
	for _, q := range quiet {
		if strings.HasPrefix(text, q) {
			return false
		}
	}
	kind := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text)
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if at, ok := w.last[kind]; ok && now.Sub(at) < warnEvery {
		return false
	}
	if len(w.last) >= warnKinds {
		clear(w.last) // strangers choose some of the text
	}
	w.last[kind] = now
	return true
}
