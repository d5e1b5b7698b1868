// Package stream implements numbered streams: how whatever one part of Shoal
// makes another part do happens exactly once and in order.
//
// A stream has one source (a node's process, or the outbox of a shard) and one
// target. Its commands are numbered densely from 1. In is the target's side: it
// is part of a group's replicated state, so it is pure: no clock, no goroutine,
// no lock; its owner calls it from apply, one call at a time.
//
// Invariants of In:
//
//   - A number is consumed at most once, and only after all lower numbers of its
//     stream: a batch is taken only if it begins at or below last+1.
//   - Every number of a batch that is taken is consumed, whatever its answer. A
//     refused batch consumes nothing and changes nothing.
//   - An answer that is more than "done" is kept until the source says that it
//     has it (Batch.Answered), so a repeat is answered as before. A repeat of a
//     number without a kept answer is answered "done", which is what it was.
//   - Nothing of a fenced process is taken, ever: a node's lowest boot that is
//     not fenced and the fence number only rise.
//   - A batch built by a source that knew of more fences than the target is
//     refused until the target has caught up. Without this a connection that
//     moved from a dead process could be overtaken by what the dead process
//     left on the way.
package stream
