// Command shoal is a clustered MQTT broker, and the small clients and questions
// that go with it.
//
// This package joins the parts: it reads the configuration, opens package
// cluster (the replicated side) and package broker (the MQTT side), hands each
// the other, and closes them in order. Exit codes: 0 done, 1 failed, 2 wrong
// usage or configuration, 27 a subscriber's time ran out.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalmq/shoal/cmd/shoal/config"
)

// Exit codes.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitTimeout = 27 // as mosquitto_sub has it
)

// exitError is an error with an exit code other than exitFailed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage marks an error as the caller's mistake.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

func main() {
	os.Exit(run(os.Args[1:]))
}

// run returns the exit code.
func run(args []string) int {
	ctx, stop := untilSignal()
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "shoal:", err)
	if e := (*exitError)(nil); errors.As(err, &e) {
		return e.code
	}
	return exitFailed
}

// sameSignal is how long after the first signal another one counts as the
// same: timeout(1), for one, signals the process and then its whole group.
const sameSignal = 500 * time.Millisecond

// untilSignal returns a context that ends with the first SIGINT or SIGTERM. A
// later one ends the process at once: whoever asks twice does not want to
// wait for the drain, and what was acknowledged is on disk.
//
// The signals stay caught until the process has ended: if they went back to their
// defaults before, the second of two in a row would kill a process that has done
// all it was asked for, and its exit code would say so.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		first := time.Now()
		cancel()
		for time.Since(first) < sameSignal {
			<-signals
		}
		fmt.Fprintln(os.Stderr, "shoal: second signal, ending without a drain")
		os.Exit(exitFailed)
	}()
	return ctx, cancel
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "shoal",
		Short:         "A clustered MQTT broker whose acknowledgements mean done",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(serveCommand(), devCommand(), pubCommand(), subCommand(), clusterCommand(), configCommand(), userCommand(), versionCommand())
	root.SetFlagErrorFunc(flagError)
	for _, cmd := range root.Commands() {
		strictArgs(cmd)
	}
	return root
}

// flagError adds the nearest flag to a mistyped one.
func flagError(cmd *cobra.Command, err error) error {
	if e := (*pflag.NotExistError)(nil); errors.As(err, &e) && cmd.Flags().Lookup(config.FileFlag) != nil {
		err = fmt.Errorf("%w; the nearest known one is --%s", err, config.Nearest(e.GetSpecifiedName()))
	}
	return usage(fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath()))
}

// strictArgs makes stray arguments of a command and those below it a usage
// error.
func strictArgs(cmd *cobra.Command) {
	allowed := cmd.Args
	if allowed == nil {
		allowed = cobra.NoArgs
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error { return usage(allowed(cmd, args)) }
	for _, sub := range cmd.Commands() {
		strictArgs(sub)
	}
}
