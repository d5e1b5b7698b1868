package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/auth"
)

// TestSCRAM: the program as it is, with a password file that serves both ways to
// prove a password, and changes.
func TestSCRAM(t *testing.T) {
	dir := t.TempDir()
	users, config := filepath.Join(dir, "passwords"), filepath.Join(dir, "shoal.yaml")
	hash := func(password string) string {
		h, err := auth.NewHash("scram-sha-256", []byte(password))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(users, "ann:"+hash("pencil")+"\n")
	write(config, "authentication:\n- scram: {file: "+users+"}\n- password-file: "+users+"\n")
	p := startNode(t, filepath.Join(dir, "data"), "--config="+config)
	pub := func(args ...string) error {
		_, err := shoal(testContext(t), nil, append([]string{"pub", "-p", p.mqtt, "-t", "a", "-m", "x", "-q", "1"}, args...)...)
		return err
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"-u ann -P pencil --scram", ""},
		{"-u ann -P pencil", ""},
		{"-u ann -P pen --scram", "connect: refused with 0x86"},
		{"-u bob -P pencil --scram", "connect: refused with 0x86"},
		{"-u ann -P pen", "connect: refused with 0x86"},
		{"", "connect: refused with 0x87"},
		{"-u ann --scram", "--scram wants -u and -P"},
		{"-u ann -P pencil --scram -V 311", "--scram wants -u and -P, and MQTT 5"},
	} {
		err := pub(strings.Fields(c.args)...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
	write(users, "ann:"+hash("brush")+"\n")
	eventually(t, "the new password", &p.said, func() bool { return pub("-u", "ann", "-P", "brush", "--scram") == nil })
	if err := pub("-u", "ann", "-P", "pencil", "--scram"); err == nil {
		t.Error("the old password is taken")
	}
	if said := p.said.String(); strings.Contains(said, "pencil") || strings.Contains(said, "brush") {
		t.Error("a password is in the log")
	}
}
