package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/shoalmq/shoal/cluster"
)

func clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Look at a cluster and change its members"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(
		apiCommand("status", "What a node sees of its cluster", (*api).status, writeStatus),
		apiCommand("members", "The nodes of the cluster, and how each is", (*api).overview, writeMembers),
		apiCommand("shards", "The shards, their leaders and replicas", (*api).overview, writeShards),
		drainCommand(), undrainCommand(), removeCommand(), rebalanceCommand(), clusterRecoverCommand(),
	)
	return cmd
}

// writeStatus prints the node's own line, then a table of nodes and one of
// raft groups.
func writeStatus(out io.Writer, s *cluster.Status) error {
	ready := "ready"
	if !s.Ready {
		ready = "not ready: " + s.Reason
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "node %s (%s), %s\ncluster %s, version %d\n\n", s.Node, s.Build, ready, orDash(s.ClusterID), s.Version)
	for _, delay := range s.Slow {
		fmt.Fprintln(w, "SLOW: "+delay)
	}
	if len(s.Slow) > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "NODE\tUP\tBOOT\tDISK\tMQTT\tHTTP\tPEERS")
	slices.SortFunc(s.Nodes, func(a, b cluster.NodeStatus) int { return strings.Compare(a.Node+"/"+a.Disk, b.Node+"/"+b.Disk) })
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", n.Node, yesNo(n.Up), n.Boot, n.Disk, orDash(n.MQTT), orDash(n.HTTP), orDash(n.RPC))
	}
	fmt.Fprintln(w, "\nGROUP\tHERE\tLEADER\tTERM\tAPPLIED\tSESSIONS\tQUEUED\tOUTBOX\tREPLICAS")
	for _, g := range s.Groups {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", g.Group, strings.ToLower(g.State), orDash(g.Leader),
			g.Term, g.Applied, g.Sessions, g.Queued, g.Outbox, strings.Join(g.Replicas, ", "))
	}
	return w.Flush()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
