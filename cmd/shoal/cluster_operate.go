package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalmq/shoal/cluster"
)

const (
	// waitEvery is how often --wait looks.
	waitEvery = time.Second
	// settledLooks: so many looks in a row must find nothing left to do. The
	// directory's leader takes a moment to plan what the command asks for.
	settledLooks = 3
	// silentLooks is how many looks in a row may get no answer: the node that is
	// asked may restart.
	silentLooks = 30
)

func drainCommand() *cobra.Command {
	return operateCommand("drain NODE", "Move leaderships and replicas away from a node",
		`Move leaderships and replicas away from a node.

It stays a member: undrain takes it back. Replicas move where other nodes can
take them, one at a time. Stopping a node needs no drain: SIGTERM gives its
leaderships away and changes no membership.`,
		drainProgress)
}

// progress says how far a command is, for --wait.
type progress func(o *cluster.Overview, m *cluster.Member) (left string, done bool)

func drainProgress(o *cluster.Overview, m *cluster.Member) (left string, done bool) {
	if m == nil {
		return "it is no member", true
	}
	return fmt.Sprintf("%d leaderships and %d replicas left", m.Leads, m.Replicas),
		m.Leads == 0 && (m.Replicas == 0 || !moving(o) && o.Waiting == "")
}

func removeProgress(_ *cluster.Overview, m *cluster.Member) (left string, done bool) {
	if m == nil {
		return "removed", true
	}
	return fmt.Sprintf("%d replicas left", m.Replicas), false
}

func undrainCommand() *cobra.Command {
	return operateCommand("undrain NODE", "Take a drained node back",
		"Take a drained node back, or one that is being removed.", nil)
}

func removeCommand() *cobra.Command {
	return operateCommand("remove NODE", "Remove a node for ever",
		`Remove a node for ever.

Its replicas move to other nodes first, one at a time; then it is forgotten, and
its disk never comes back. It is refused when it is not safe, with the reason.
Drain a node that serves first, or use --force. A node whose disk is lost needs
no removal: started with an empty data directory it takes its place again.`,
		removeProgress)
}

func rebalanceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rebalance", Short: "Spread replicas and leaderships now", Args: cobra.NoArgs,
		Long: "Spread replicas and leaderships over the nodes now, without waiting for new nodes to have been up for a while.",
	}
	a := apiFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		text, err := a.operate(cmd.Context(), "rebalance", "", false)
		if err == nil {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
		}
		return err
	}
	return cmd
}

// operateCommand makes a command about one node; progress is nil if there is
// nothing to wait for.
func operateCommand(use, short, long string, progress progress) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1)}
	a := apiFlags(cmd.Flags())
	var force, wait bool
	if cmd.Name() == "remove" {
		cmd.Flags().BoolVar(&force, "force", false, "also if it is in use, or fewer replicas are left")
	}
	if progress != nil {
		cmd.Flags().BoolVar(&wait, "wait", false, "return when it is done, and tell how far it is meanwhile")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := a.operate(cmd.Context(), cmd.Name(), args[0], force)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil || !wait {
			return err
		}
		return a.await(cmd.Context(), cmd.OutOrStdout(), args[0], progress)
	}
	return cmd
}

// await looks again and again, and prints what has changed.
func (a *api) await(ctx context.Context, out io.Writer, node string, progress progress) error {
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	told := ""
	for settled, silent := 0, 0; ; {
		o, err := a.overview(ctx)
		var left string
		var done bool
		switch {
		case err == nil:
			silent = 0
			if left, done = progress(o, o.Member(node)); o.Waiting != "" && !done {
				left += "; waiting: " + o.Waiting
			}
		case errors.As(err, new(unreachable)) && ctx.Err() == nil && silent < silentLooks:
			silent++
			left = err.Error()
		default:
			return err
		}
		if left != told {
			told = left
			if _, err := fmt.Fprintln(out, left); err != nil {
				return err
			}
		}
		if settled++; !done {
			settled = 0
		}
		if settled == settledLooks {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// moving tells whether any replica is being moved.
func moving(o *cluster.Overview) bool {
	for _, s := range o.Shards {
		for _, r := range s.Replicas {
			if r.Change != "" {
				return true
			}
		}
	}
	return false
}
