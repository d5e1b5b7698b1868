package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalmq/shoal/cluster"
)

func clusterRecoverCommand() *cobra.Command {
	var dir string
	var force bool
	cmd := &cobra.Command{
		Use:   "recover --data-dir DIR --force",
		Short: "Make a cluster of one disk, when the majority is lost for good",
		Long: `Make a cluster of one disk, when the majority of its cluster is lost for good.

This is the last resort, for when more disks are lost than the others can do
without: it gives up what was acknowledged and has not come to this disk. While
lost nodes may come back with their disks, start them instead.

The node must not run. Its shards and their sessions, queues and subscriptions
are kept as far as this disk has them; messages may be delivered twice. What
comes out is another cluster with another id: nodes with disks of the former one
are refused. Start this node, then the others with empty data directories: they
join, and replicas are made on them.

Of several disks that are left choose the one that was in the cluster last, and
keep a copy of it.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "data directory of a node that does not run")
	cmd.Flags().BoolVar(&force, "force", false, "yes, the other disks are lost")
	output := outputFlag(cmd, "text")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case dir == "":
			return usage(errors.New("--data-dir is missing: which disk?"))
		case !force:
			return usage(errors.New("this gives up what only other disks have: say --force if they are lost for good"))
		}
		r, err := cluster.Recover(dir, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
		if err != nil {
			return err
		}
		if output.json() {
			return writeJSON(cmd.OutOrStdout(), r)
		}
		return writeRecovered(cmd.OutOrStdout(), r)
	}
	return cmd
}

func writeRecovered(w io.Writer, r cluster.Recovered) error {
	lost := "none"
	if len(r.Lost) > 0 {
		lost = strings.Join(r.Lost, ", ") + " (they begin empty)"
	}
	_, err := fmt.Fprintf(w, `Cluster %s is now cluster %s, of node %s alone.
Kept: %s. Lost: %s.
Start this node; then start the others with empty data directories.
`, r.Former, r.ClusterID, r.Node, strings.Join(r.Kept, ", "), lost)
	return err
}
