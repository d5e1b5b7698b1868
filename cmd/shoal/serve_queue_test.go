package main

import (
	"testing"

	"github.com/spf13/pflag"

	"github.com/shoalmq/shoal/cmd/shoal/config"
	shoalpb "github.com/shoalmq/shoal/proto"
)

func loadConfig(t *testing.T, args ...string) *config.Config {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	config.AddFlags(flags)
	if err := flags.Parse(append(args, "--node-id=a")); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(flags, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestQueueLimits(t *testing.T) {
	if l := queueLimits(loadConfig(t)); l != nil {
		t.Errorf("limits %v although none are configured", l)
	}
	l := queueLimits(loadConfig(t, "--queue-overflow=reject", "--max-queued-bytes=1MiB"))
	if l == nil || l.Messages != 100_000 || l.Bytes != 1<<20 || l.Policy != shoalpb.QueuePolicy_QUEUE_POLICY_REJECT {
		t.Errorf("limits %v", l)
	}
	if l := queueLimits(loadConfig(t, "--queue-overflow=drop-new")); l.Policy != shoalpb.QueuePolicy_QUEUE_POLICY_DROP_NEW {
		t.Errorf("limits %v", l)
	}
}

func TestQueueMemory(t *testing.T) {
	for _, c := range []struct{ configured, memory, want int64 }{
		{0, 0, 512 << 20}, {0, 1 << 30, 256 << 20}, {0, 64 << 30, 512 << 20}, {1 << 20, 1 << 30, 1 << 20}, {4 << 30, 1 << 30, 4 << 30},
	} {
		if got := queueMemory(c.configured, c.memory); int64(got) != c.want {
			t.Errorf("configured %d of %d: %d, want %d", c.configured, c.memory, got, c.want)
		}
	}
}
