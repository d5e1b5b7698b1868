package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Flags and variables in what is deployed must be ones that serve knows: helm
// and docker would find out only when a node starts.
func TestDeployedFlagsExist(t *testing.T) {
	serve, _, err := rootCommand().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range []string{"helm/shoal/templates/statefulset.yaml", "deploy/shoal.service", "deploy/Dockerfile", "cmd/shoal/dev.go", "Makefile"} {
		text, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`[ "]--([a-z-]+)=`).FindAllSubmatch(text, -1) {
			found++
			if serve.Flags().Lookup(string(m[1])) == nil {
				t.Errorf("%s has --%s, which serve does not", file, m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("found only %d flags: does the pattern still fit?", found)
	}
}
