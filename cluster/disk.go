package cluster

import (
	"errors"
	"fmt"

	"github.com/shoalmq/shoal/storage"
)

// openDisk opens the data directory and reads all of it before anything of this
// node reaches others. A disk that cannot be trusted is never used: if the others
// can do without it, it is moved aside and the node begins with a new one, which
// is another raft server; else the node does not start, and nothing is changed.
func (n *Node) openDisk() error {
	err := n.readDisk()
	var bad *storage.BadDiskError
	if !errors.As(err, &bad) {
		return err
	}
	n.log.Error("the disk cannot be trusted", "err", bad)
	n.closeDisk()
	if why := n.replaceDisk(bad); why != nil {
		return fmt.Errorf("%w; it is kept as it is, because %w. If the other nodes come back, start this one again. "+
			"If their disks are lost for good, `shoal cluster recover` says what can be done with this one", bad, why)
	}
	return n.readDisk()
}

// readDisk opens all files and checks that logs fit their states.
func (n *Node) readDisk() (err error) {
	so := storage.Options{NodeID: n.config.NodeID, Logger: n.log, OnFatal: n.diskFailed}
	if h := n.config.Disk; h != nil {
		so.BeforeSync = h.BeforeSync
	}
	if n.dir, err = storage.Open(n.config.DataDir, so); err != nil {
		return err
	}
	if n.logs, err = n.dir.OpenLog(storage.LogOptions{TailBytes: logCacheBytes, OnCommit: n.watch.committed}); err != nil {
		return err
	}
	n.states = make(map[uint32]*storage.StateFile)
	for _, id := range n.dir.Groups() {
		state, err := n.dir.OpenState(id)
		if err != nil {
			return err
		}
		n.states[id] = state
		marker, has := state.Marker()
		if err := storage.CheckStart(n.logs.Group(id), marker, has); err != nil {
			return fmt.Errorf("open %s: %w", groupName(id), err)
		}
	}
	if n.boot, err = n.dir.NextBoot(); err != nil {
		return err
	}
	n.bootNow.Store(n.boot)
	n.bootTold.Store(n.boot - 1)
	n.diskOpen.Store(true)
	return n.dir.Failed()
}

// diskFailed ends the node, once it runs; before, whoever opens the disk gets the
// error.
func (n *Node) diskFailed(err error) {
	if n.diskOpen.Load() {
		n.fatal(err)
	}
}

// closeDisk closes what readDisk has opened.
func (n *Node) closeDisk() {
	if n.logs != nil {
		_ = n.logs.Close()
	}
	if n.dir != nil {
		_ = n.dir.Close()
	}
	n.logs, n.dir, n.states = nil, nil, nil
}

// openState is the state file of a group, which may have been opened already.
func (n *Node) openState(id uint32) (*storage.StateFile, error) {
	n.mu.Lock()
	state := n.states[id]
	delete(n.states, id)
	n.mu.Unlock()
	if state != nil {
		return state, nil
	}
	state, err := n.dir.OpenState(id)
	if err != nil {
		return nil, fmt.Errorf("open state of %s: %w", groupName(id), err)
	}
	return state, nil
}

// knownBoot is the highest boot of a server that the own directory copy knows, 0
// for none.
func (n *Node) knownBoot(server string) (boot uint64) {
	n.readDirectory(func(d *directoryMachine) {
		if x, ok := d.Node(nodeOf(server)); ok && serverOf(x) == server {
			boot = x.Info.Boot
		}
	})
	return boot
}

// rolledBack ends the node: its disk has forgotten what it promised.
func (n *Node) rolledBack(known uint64) {
	_ = n.dir.Condemn(fmt.Sprintf("disk %s is rolled back: boot %d was seen, this is %d", n.disk, known, n.bootNow.Load()))
}
