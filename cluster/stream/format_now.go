//go:build !shoalnext

package stream

// LastFormat is the newest format of log entries that this build reads and
// writes, and the highest cluster version that it serves.
const LastFormat = 2
