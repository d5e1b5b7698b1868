// Package storage owns everything in a node's data directory:
//
//	lock               flock'd while a process uses the directory; holds its pid
//	identity           node, disk, boot, promise, cluster: see Identity
//	log.db             the raft log and stable values of all groups: see Log
//	state-<group>.db   one group's state as of its last checkpoint: see StateFile
//	tainted            says why the disk must not be used any more
//	aside-<time>/      the files of a bad disk, never read again: see MoveAside
//
// It knows nothing of MQTT, of the life of raft groups or of other nodes; of
// hashicorp/raft it uses the interfaces it implements.
//
// # What is assumed of a disk, what is promised
//
// A write that was fsynced stays; a sector of 512 bytes is written whole or not
// at all; anything not fsynced may be lost in part. Then whatever a method
// reported as done is there after a crash, in full, and what it had not yet
// reported is there in full or not at all. If the assumption fails (a flipped
// bit, a lost or a stale page), that is found before raft sees the contents:
// opening a file reads all of it, see checkLog and checkState. A disk found bad
// is refused with a *BadDiskError and never changed or erased.
//
// The first write or fsync that fails ends the use of the directory: it is
// marked tainted, Options.OnFatal is called once, all later writes are refused
// with the same error. An operating system may drop the pages of a failed fsync,
// so trying again proves nothing. A write refused because the disk is full ends
// it too, but without the mark: nodes with equal disks fill them at the same
// time, and must all come back when there is room again.
//
// # Goroutines and locks
//
// A Log owns one goroutine, the committer, started by OpenLog and waited for by
// Close. Everything else runs on the caller's. All methods may be called
// concurrently unless they say otherwise. Lock order: StateFile.write, then
// StateFile.mu; Log.mu and GroupLog.mu are leaves.
package storage
