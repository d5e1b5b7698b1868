package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/shoalmq/shoal/cluster"
)

// writeMembers prints one line a node, and what keeps replicas from moving.
func writeMembers(out io.Writer, o *cluster.Overview) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tREADY\tLEADS\tREPLICAS\tDISK FREE\tBUILD\tVERSION\tBOOT\tDISK\tMQTT\tHTTP")
	for _, m := range o.Members {
		state := m.State
		if m.Wish != "" {
			state += ", " + m.Wish
		}
		ready := yesNo(m.Ready)
		if m.Reason != "" {
			ready += ": " + m.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", m.Node, state, ready, m.Leads, m.Replicas,
			diskFree(m.DiskFree), orDash(m.Build), m.Version, m.Boot, m.Disk, orDash(m.MQTT), orDash(m.HTTP))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return writeWaiting(out, o)
}

// diskFree is a number of bytes for people.
func diskFree(n uint64) string {
	switch {
	case n == 0:
		return "-"
	case n < 10<<30:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}

func writeWaiting(out io.Writer, o *cluster.Overview) error {
	if o.Waiting == "" {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nwaiting: %s\n", o.Waiting)
	return err
}

// writeShards prints one line a shard.
func writeShards(out io.Writer, o *cluster.Overview) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SHARD\tLEADER\tSESSIONS\tQUEUED\tRETAINED\tOUTBOX\tREPLICAS")
	for _, s := range o.Shards {
		var replicas []string
		for _, r := range s.Replicas {
			replicas = append(replicas, replicaText(r))
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", s.Shard, orDash(s.Leader), s.Sessions, s.Queued, s.Retained, s.Outbox,
			strings.Join(replicas, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return writeWaiting(out, o)
}

// replicaText is a replica's node, with what is unusual about it.
func replicaText(r cluster.Replica) string {
	var more []string
	if r.State != "leader" && r.State != "follower" {
		more = append(more, r.State)
	}
	if r.Change != "" {
		more = append(more, r.Change)
	}
	if r.Behind > behindNoted {
		more = append(more, fmt.Sprintf("%d behind", r.Behind))
	}
	if len(more) == 0 {
		return r.Node
	}
	return r.Node + " (" + strings.Join(more, ", ") + ")"
}

// behindNoted: nodes are asked one after the other, while entries are applied.
const behindNoted = 1000
