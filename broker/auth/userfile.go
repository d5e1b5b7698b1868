package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// UserFile is a password file that is being changed. Comments, and lines that
// are not understood, stay as they are. It is for one goroutine.
type UserFile struct {
	path  string
	lines []string
}

// User is one of a UserFile.
type User struct {
	Name string `json:"name"`
	// Hash is the kind of the hash.
	Hash string `json:"hash"`
}

// ReadUserFile reads the file at path. If there is none it is an empty one, if
// that is asked for.
func ReadUserFile(path string, mayBeNew bool) (*UserFile, error) {
	f := &UserFile{path: path}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mayBeNew:
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("read password file: %w", err)
	}
	if text := strings.TrimSuffix(string(data), "\n"); text != "" {
		f.lines = strings.Split(text, "\n")
	}
	return f, nil
}

// find returns the line of a user, or -1.
func (f *UserFile) find(name string) int {
	for i, line := range f.lines {
		if user, _, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(user) == name && !isComment(line) {
			return i
		}
	}
	return -1
}

func isComment(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "#") }

// Has tells whether there is a user of this name.
func (f *UserFile) Has(name string) bool { return f.find(name) >= 0 }

// Set gives a user, new or known, a hash.
func (f *UserFile) Set(name, hash string) error {
	if strings.ContainsAny(name, ":\r\n\x00") || strings.HasPrefix(name, "#") || strings.TrimSpace(name) != name {
		return fmt.Errorf("user %q: a name has no colon and no line break, does not begin with #, and has no blanks around it", name)
	}
	line := name + ":" + hash
	if _, _, err := parseLine(line); err != nil {
		return err
	}
	if i := f.find(name); i >= 0 {
		f.lines[i] = line
	} else {
		f.lines = append(f.lines, line)
	}
	return nil
}

// Remove removes a user, and tells whether there was one.
func (f *UserFile) Remove(name string) bool {
	i := f.find(name)
	if i >= 0 {
		f.lines = append(f.lines[:i], f.lines[i+1:]...)
	}
	return i >= 0
}

// Users are those of the file, in its order.
func (f *UserFile) Users() []User {
	users := []User{}
	for _, line := range f.lines {
		name, hash, ok := strings.Cut(line, ":")
		if !ok || isComment(line) {
			continue
		}
		name, hash = strings.TrimSpace(name), strings.TrimSpace(hash)
		kind := HashKind(hash)
		if kind == "" {
			kind = "unknown"
		}
		users = append(users, User{name, kind})
	}
	return users
}

// Check tells whether a password is the user's.
func (f *UserFile) Check(name string, password []byte) bool {
	i := f.find(name)
	if i < 0 {
		return false
	}
	_, e, err := parseLine(strings.TrimRight(f.lines[i], " \t\r"))
	return err == nil && e.hash.verify(password)
}

// Write replaces the file, as a whole or not at all. A new one can be read by its
// owner only; of one that was there the mode and the owner stay.
func (f *UserFile) Write() error {
	path, err := filepath.EvalSymlinks(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		path, err = f.path, nil
	}
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	t, err := os.CreateTemp(filepath.Dir(path), ".shoal-user-*")
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	defer os.Remove(t.Name())
	err = errors.Join(f.fill(t, path), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	return nil
}

func (f *UserFile) fill(t *os.File, path string) error {
	mode := fs.FileMode(0o600)
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode().Perm()
		if err := keepOwner(t, st); err != nil {
			return err
		}
	}
	if err := t.Chmod(mode); err != nil {
		return err
	}
	for _, line := range f.lines {
		if _, err := t.WriteString(line + "\n"); err != nil {
			return err
		}
	}
	return t.Sync()
}
