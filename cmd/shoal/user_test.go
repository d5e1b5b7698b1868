package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUser goes through the life of a password file.
func TestUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwords")
	user := func(stdin string, args ...string) (string, error) {
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetIn(strings.NewReader(stdin))
		root.SetArgs(append([]string{"user", "--file", path}, args...))
		err := root.Execute()
		return out.String(), err
	}
	ok := func(stdin string, args ...string) string {
		t.Helper()
		out, err := user(stdin, args...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	fails := func(want, stdin string, args ...string) {
		t.Helper()
		if out, err := user(stdin, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q, got %v, %s", args, want, err, out)
		}
	}
	fails("no such file", "x\n", "passwd", "ann", "--stdin")
	fails("no such file", "", "list")
	ok("one\n", "add", "ann", "--stdin", "--hash", "pbkdf2")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(data), "ann:$7$") {
		t.Errorf("%s, %v", data, err)
	}
	if err := os.WriteFile(path, append([]byte("# who\n"), data...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	ok("two", "add", "bob", "--stdin")
	fails("is in", "x\n", "add", "bob", "--stdin")
	ok("right\n", "passwd", "bob", "--stdin", "--hash", "bcrypt")
	ok("one\n", "check", "ann", "--stdin")
	ok("right\n", "check", "bob", "--stdin")
	fails("not the password", "two\n", "check", "bob", "--stdin")
	fails("not the password", "two\n", "check", "eve", "--stdin")
	fails("--stdin", "", "add", "eve")
	fails("want 1 to", "\n", "add", "eve", "--stdin")
	fails("want one of", "x\n", "add", "eve", "--stdin", "--hash", "md5")
	fails("no colon", "x\n", "add", "e:ve", "--stdin")
	fails("no colon", "x\n", "add", "#eve", "--stdin")
	if out := ok("", "list"); !strings.Contains(out, "ann   pbkdf2\nbob   bcrypt\n") {
		t.Errorf("list:\n%s", out)
	}
	if out := ok("", "list", "-o", "json"); !strings.Contains(out, `"name": "ann"`) {
		t.Errorf("list:\n%s", out)
	}
	ok("", "remove", "ann")
	fails("no user", "", "remove", "ann")
	data, err = os.ReadFile(path)
	st, _ := os.Stat(path)
	if err != nil || !strings.HasPrefix(string(data), "# who\nbob:$2") || strings.Count(string(data), "\n") != 2 || st.Mode().Perm() != 0o640 {
		t.Errorf("%s, %v, %v", data, st.Mode(), err)
	}
}
