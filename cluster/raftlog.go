package cluster

import (
	"context"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger bridges raft's logger into l as debug, except errors that are not
// of peers that cannot be reached: raft repeats those for each group and try,
// while groups tell who leads, and leases and readiness what it means.
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
	if strings.HasPrefix(text, "[ERROR]") && !strings.Contains(text, "failed to") {
		level = slog.LevelWarn
	}
	if _, after, ok := strings.Cut(text, "raft: "); ok {
		text = after
	}
	s.l.Log(context.Background(), level, text)
	return len(line), nil
}
