package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// output is the flag -o: the form of what a command prints, json or its own.
type output struct{ own, chosen string }

func outputFlag(cmd *cobra.Command, own string) *output {
	o := &output{own, own}
	cmd.Flags().VarP(o, "output", "o", fmt.Sprintf("%s or json", own))
	return o
}

func (o *output) json() bool     { return o.chosen == "json" }
func (o *output) String() string { return o.chosen }
func (o *output) Type() string   { return "form" }

func (o *output) Set(v string) error {
	if v != o.own && v != "json" {
		return fmt.Errorf("want %s or json", o.own)
	}
	o.chosen = v
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
