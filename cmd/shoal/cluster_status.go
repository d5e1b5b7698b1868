package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalmq/shoal/cluster"
)

const (
	statusTimeout  = 5 * time.Second
	maxStatusBytes = 16 << 20
)

func clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Questions about a cluster"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(clusterStatusCommand(), clusterRecoverCommand())
	return cmd
}

func clusterStatusCommand() *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What a node sees of its cluster",
	}
	cmd.Flags().StringVar(&addr, "http", "127.0.0.1:18083", "HTTP address of the node, on this host")
	output := outputFlag(cmd, "table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := fetchStatus(cmd.Context(), strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/"))
		if err != nil {
			return err
		}
		if output.json() {
			return writeJSON(cmd.OutOrStdout(), s)
		}
		return writeStatus(cmd.OutOrStdout(), s)
	}
	return cmd
}

func fetchStatus(ctx context.Context, addr string) (*cluster.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/v1/status", nil)
	if err != nil {
		return nil, usage(fmt.Errorf("--http %q: want host:port", addr))
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask for status: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatusBytes))
	if err != nil {
		return nil, fmt.Errorf("ask for status: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for status: %s answers %s: %s", addr, resp.Status, strings.TrimSpace(string(body)))
	}
	s := new(cluster.Status)
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("ask for status: read answer of %s: %w", addr, err)
	}
	return s, nil
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
