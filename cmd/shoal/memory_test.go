package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMachineMemory(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  uint64
	}{
		{"nothing known", nil, 0},
		{"machine", map[string]string{"proc/meminfo": "MemTotal:        8000 kB\nMemFree: 1 kB\n"}, 8000 << 10},
		{"container, version 2", map[string]string{
			"proc/meminfo": "MemTotal: 8000 kB\n", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n",
		}, 1 << 20},
		{"no limit", map[string]string{
			"proc/meminfo": "MemTotal: 8000 kB\n", "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n",
		}, 8000 << 10},
		{"limit of a group above", map[string]string{
			"proc/meminfo": "MemTotal: 8000 kB\n", "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "4096\n",
		}, 4096},
		{"version 1", map[string]string{
			"proc/meminfo": "MemTotal: 8000 kB\n", "proc/self/cgroup": "3:cpu:/x\n2:memory:/a\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "8192\n",
		}, 8192},
		{"version 1, no limit", map[string]string{
			"proc/meminfo": "MemTotal: 8000 kB\n", "proc/self/cgroup": "2:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 8000 << 10},
	} {
		root := t.TempDir()
		for name, text := range tt.files {
			file := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := machineMemory(root); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
