package storage

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	logName     = "log.db"
	statePrefix = "state-"
	stateSuffix = ".db"
)

func stateName(group uint32) string {
	return statePrefix + strconv.FormatUint(uint64(group), 10) + stateSuffix
}

// parseStateName returns the group whose state file has the name.
func parseStateName(name string) (group uint32, ok bool) {
	digits, found := strings.CutPrefix(name, statePrefix)
	if !found {
		return 0, false
	}
	digits, found = strings.CutSuffix(digits, stateSuffix)
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), found && err == nil && stateName(uint32(n)) == name
}

func isStateName(name string) bool {
	_, ok := parseStateName(name)
	return ok
}

// opening is in the place of a part that is being opened.
type opening struct{}

func (opening) Close() error { return nil }

// part opens the file called name once: make creates it at a path if the
// identity does not list it, then open opens it. Several parts may be opened at
// once, since that reads all of each.
func (d *Dir) part(name string, makeFile func(path string) error, open func(path string) (io.Closer, error)) (io.Closer, error) {
	if err := d.claim(name, makeFile); err != nil {
		return nil, err
	}
	p, err := open(filepath.Join(d.path, name))
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && d.closed {
		d.mu.Unlock()
		_ = p.Close() // it forgets itself
		d.mu.Lock()
		err = ErrClosed
	}
	if err != nil {
		delete(d.parts, name)
		return nil, err
	}
	d.parts[name] = p
	return p, nil
}

// claim makes sure that the file is there and nobody else opens it. A file that
// is there but not listed is one whose making or removal a crash cut short; it
// is made anew.
func (d *Dir) claim(name string, makeFile func(path string) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if err := d.health.check(); err != nil {
		return err
	}
	if d.parts[name] != nil {
		return fmt.Errorf("%s is open already", name)
	}
	if !slices.Contains(d.id.Files, name) {
		if err := d.create(filepath.Join(d.path, name), makeFile); err != nil {
			return err
		}
		id := d.id.clone()
		id.Files = append(id.Files, name)
		slices.Sort(id.Files)
		if err := d.save(id); err != nil {
			return err
		}
	}
	d.parts[name] = opening{}
	return nil
}

// create makes a file under another name and then gives it its own: a file with
// its own name is complete.
func (d *Dir) create(path string, makeFile func(path string) error) error {
	tmp := tempName(path, tmpInfix)
	d.opt.step("create before")
	if err := makeFile(tmp); err != nil {
		_ = os.Remove(tmp)
		return d.health.fail(fmt.Errorf("make %s: %w", path, err))
	}
	if err := renameDurably(tmp, path); err != nil {
		return d.health.fail(fmt.Errorf("make %s: %w", path, err))
	}
	d.opt.step("create after")
	return nil
}

// forget ends the use of an open part.
func (d *Dir) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.parts, name)
}

// Groups returns the groups that have a state file, ascending.
func (d *Dir) Groups() (groups []uint32) {
	for _, name := range d.Identity().Files {
		if group, ok := parseStateName(name); ok {
			groups = append(groups, group)
		}
	}
	slices.Sort(groups)
	return groups
}

// RemoveState erases a group's state file, which must be closed. The group's
// entries and stable values stay: see GroupLog.Empty. No file is no error.
func (d *Dir) RemoveState(group uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := stateName(group)
	if d.closed {
		return ErrClosed
	}
	if d.parts[name] != nil {
		return fmt.Errorf("remove %s: it is open", name)
	}
	if i := slices.Index(d.id.Files, name); i >= 0 {
		id := d.id.clone()
		id.Files = slices.Delete(id.Files, i, i+1)
		if err := d.save(id); err != nil {
			return err
		}
	}
	d.opt.step("remove before")
	if err := os.Remove(filepath.Join(d.path, name)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove state: %w", err)
	}
	return syncDir(d.path)
}
