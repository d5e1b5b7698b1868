package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// maxLineBytes bounds a line of -l to what brokers take as a payload.
const maxLineBytes = 1 << 20

func pubCommand() *cobra.Command {
	var (
		f     clientFlags
		text  string
		lines bool
		empty bool
	)
	cmd := &cobra.Command{
		Use:   "pub -t topic {-m message | -n | -l}",
		Short: "Publish messages; the exit code is 0 when all are acknowledged",
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&text, "message", "m", "", "the message")
	cmd.Flags().BoolVarP(&empty, "null-message", "n", false, "an empty message")
	cmd.Flags().BoolVarP(&lines, "stdin-line", "l", false, "each line of standard input is a message")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(f.check(), oneMessage(cmd), plainTopic(f.topics)); err != nil {
			return usage(err)
		}
		var source io.Reader
		if lines {
			source = cmd.InOrStdin()
		}
		return publishAll(cmd.Context(), &f, text, source)
	}
	return cmd
}

func oneMessage(cmd *cobra.Command) error {
	given := 0
	for _, name := range []string{"message", "null-message", "stdin-line"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	if given != 1 {
		return errors.New("want one of -m message, -n (empty message) and -l (lines of standard input)")
	}
	return nil
}

func plainTopic(topics []string) error {
	if len(topics) > 1 {
		return errors.New("-t may be given once")
	}
	if len(topics) == 1 && strings.ContainsAny(topics[0], "+#") {
		return fmt.Errorf("-t %q: a message cannot be published to a wildcard", topics[0])
	}
	return nil
}

// publishAll publishes text, or the lines of source, each after the one before
// is acknowledged.
func publishAll(ctx context.Context, f *clientFlags, text string, source io.Reader) error {
	c, err := f.dial(ctx, receiver{take: func(message) error { return nil }, done: func() {}})
	if err != nil {
		return err
	}
	if source == nil {
		err = c.publish(ctx, f.topics[0], []byte(text), f.qos)
	} else {
		err = publishLines(ctx, c, f, source)
	}
	if err != nil {
		// Why the connection ended tells more than that it did.
		select {
		case reason := <-c.lost():
			err = fmt.Errorf("%w (%w)", err, reason)
		default:
		}
		c.disconnect() // the error at hand is the one to report
		return err
	}
	return c.disconnect()
}

func publishLines(ctx context.Context, c client, f *clientFlags, source io.Reader) error {
	in := bufio.NewScanner(source)
	in.Buffer(nil, maxLineBytes)
	for in.Scan() {
		if err := c.publish(ctx, f.topics[0], in.Bytes(), f.qos); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return nil
}
