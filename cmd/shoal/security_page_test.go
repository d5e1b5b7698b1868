package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoalmq/shoal/broker/acl"
)

// TestSecurityPage: the examples of docs/SECURITY.md, and of docs/OVERLOAD.md, are
// read by the program.
func TestSecurityPage(t *testing.T) {
	page := string(read(t, "../../docs/SECURITY.md"))
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page+string(read(t, "../../docs/OVERLOAD.md")), -1)
	if len(blocks) < 7 {
		t.Fatalf("only %d examples", len(blocks))
	}
	for _, b := range blocks {
		dir := t.TempDir()
		text := strings.ReplaceAll(b[1], "/etc/shoal/", dir+"/")
		if strings.Contains(text, "rules:\n") {
			if _, err := acl.ParseYAML("rules.yaml", []byte(text)); err != nil {
				t.Errorf("%s\n%v", b[1], err)
			}
			continue
		}
		for _, path := range regexp.MustCompile(regexp.QuoteMeta(dir)+`/[\w.-]+`).FindAllString(text, -1) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, "shoal.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loadConfig(t, "--config="+file)
	}
	block := regexp.MustCompile(`(?s)acl_file.:\n\n(.*?)\n###`).FindStringSubmatch(page)
	if block == nil {
		t.Fatal("no example of Mosquitto's file")
	}
	if _, err := acl.ParseMosquitto("acl", []byte(block[1])); err != nil {
		t.Error(err)
	}
}
