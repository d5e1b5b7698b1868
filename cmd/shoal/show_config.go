package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/shoalmq/shoal/cmd/shoal/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration that serve would use with the same flags, and where each value comes from",
	}
	config.AddFlags(cmd.Flags())
	output := outputFlag(cmd, "yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), os.Environ())
		if err != nil {
			return usage(err)
		}
		if output.json() {
			return writeJSON(cmd.OutOrStdout(), c.Values())
		}
		return c.WriteYAML(cmd.OutOrStdout())
	}
	return cmd
}
