package main

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryPart is how much of the machine's, or the container's, memory the
// process takes for its own if nobody says how much: the rest is for the
// kernel's buffers and the cache of the data files.
const memoryPart = 0.75

// limitMemory gives the garbage collector its limit and returns it: what is
// configured (bytes), or GOMEMLIMIT, or a part of what there is. 0 is none.
func limitMemory(configured int64) int64 {
	if configured == 0 {
		if os.Getenv("GOMEMLIMIT") != "" {
			if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // of the runtime
				return limit
			}
			return 0
		}
		configured = int64(memoryPart * float64(machineMemory("/")))
	}
	if configured > 0 {
		debug.SetMemoryLimit(configured)
	}
	return configured
}

// machineMemory is the memory there is for this process: the least of the
// machine's and the limits of its control groups. 0 if the system does not say.
func machineMemory(root string) (bytes uint64) {
	bytes = totalMemory(path.Join(root, "proc/meminfo"))
	for _, file := range groupLimits(path.Join(root, "proc/self/cgroup")) {
		text, err := os.ReadFile(path.Join(root, file))
		if err != nil {
			continue
		}
		// "max" is no number, and no limit.
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63); err == nil && limit > 0 && (bytes == 0 || limit < bytes) {
			bytes = limit
		}
	}
	return bytes
}

// groupLimits are the files that may have a limit of the process's control
// group, or of one above it.
func groupLimits(of string) (files []string) {
	text, err := os.ReadFile(of)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, name := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[1] == "": // version 2
		case strings.Contains(parts[1], "memory"):
			mount, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group := parts[2]; ; group = path.Dir(group) {
			files = append(files, path.Join(mount, group, name))
			if group == "/" || group == "." {
				break
			}
		}
	}
	return files
}

func totalMemory(meminfo string) uint64 {
	text, err := os.ReadFile(meminfo)
	if err != nil {
		return 0
	}
	r := bufio.NewReader(bytes.NewReader(text))
	for {
		line, err := r.ReadString('\n')
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseUint(f[1], 10, 53)
			return kib << 10
		}
		if err == io.EOF {
			return 0
		}
	}
}
