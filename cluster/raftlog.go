package cluster

import (
	"context"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger bridges raft's logger into l: warnings and errors as such, the
// rest as debug.
func raftLogger(l *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:        "raft",
		Level:       hclog.Debug,
		Output:      slogLines{l},
		DisableTime: true,
	})
}

type slogLines struct{ l *slog.Logger }

// Write takes one line of hclog.
func (s slogLines) Write(line []byte) (int, error) {
	level, text := slog.LevelDebug, strings.TrimSpace(string(line))
	switch {
	case strings.Contains(text, "skipping application of old log"):
		// What RestoreCommittedLogs finds already in the state at every start.
	case strings.HasPrefix(text, "[ERROR]"), strings.HasPrefix(text, "[WARN]"):
		level = slog.LevelWarn
	}
	if _, after, ok := strings.Cut(text, "raft: "); ok {
		text = after
	}
	s.l.Log(context.Background(), level, text)
	return len(line), nil
}
