package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/spf13/pflag"

	"github.com/shoalmq/shoal/cmd/shoal/config"
)

// Flags and variables in what is deployed must be ones that serve knows: helm
// and docker would find out only when a node starts.
func TestDeployedFlagsExist(t *testing.T) {
	serve, _, err := rootCommand().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	serve.Flags().VisitAll(func(f *pflag.Flag) {
		known["--"+f.Name] = true
		known[config.EnvName(f.Name)] = true
	})
	found := 0
	for _, file := range []string{"helm/shoal/templates/statefulset.yaml", "deploy/shoal.service", "deploy/Dockerfile", "cmd/shoal/dev.go"} {
		text, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`[ "](--[a-z-]+|SHOAL_\w+)=`).FindAllSubmatch(text, -1) {
			if found++; !known[string(m[1])] && !dockers[string(m[1])] {
				t.Errorf("%s has %s, which serve does not", file, m[1])
			}
		}
	}
	if found < 25 {
		t.Errorf("found only %d flags: does the pattern still fit?", found)
	}
}

// The chart's own list of keys must be serve's.
func TestChartsKeysExist(t *testing.T) {
	var schema struct {
		Properties struct {
			Config struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(read(t, "../../helm/shoal/values.schema.json"), &schema); err != nil {
		t.Fatal(err)
	}
	serve, _, err := rootCommand().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	if len(schema.Properties.Config.Properties) < 8 {
		t.Error("the schema lists hardly any keys")
	}
	for key := range schema.Properties.Config.Properties {
		if serve.Flags().Lookup(key) == nil {
			t.Errorf("values.schema.json allows %s, which serve does not know", key)
		}
	}
}

// dockers are flags of the Dockerfile's own instructions.
var dockers = map[string]bool{"--from": true, "--chown": true}
