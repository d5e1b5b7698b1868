package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func subCommand() *cobra.Command {
	var (
		f       clientFlags
		verbose bool
		count   uint
		seconds uint
	)
	cmd := &cobra.Command{
		Use:   "sub -t filter [-t filter ...]",
		Short: "Subscribe and print messages until interrupted",
		Long: `Subscribe and print messages until interrupted.

A message is acknowledged after it was printed. With -c, what was not is there
the next time. The end of -C waits until the messages are finished; one of QoS 2
that was printed just before an interrupt may be printed again the next time,
for sub keeps no state of its own on disk.`,
	}
	f.add(cmd)
	output := outputFlag(cmd, "text")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the topic before each message")
	cmd.Flags().UintVarP(&count, "count", "C", 0, "end after so many messages (0: never)")
	cmd.Flags().UintVarP(&seconds, "timeout", "W", 0, "end after so many seconds with exit code 27 (0: never)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return usage(err)
		}
		print := printText
		switch {
		case output.json():
			print = printJSON
		case verbose:
			print = printVerbose
		}
		ctx := cmd.Context()
		if seconds > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
			defer cancel()
		}
		return subscribe(ctx, &f, count, func(m message) error { return print(cmd.OutOrStdout(), m) })
	}
	return cmd
}

// subscribe prints messages until count of them are finished, ctx ends, or the
// connection does. A message that could not be printed is not
// acknowledged.
func subscribe(ctx context.Context, f *clientFlags, count uint, print func(message) error) error {
	failed, enough := make(chan error, 1), make(chan struct{})
	var printed uint
	var finished atomic.Uint64
	r := receiver{
		take: func(m message) error {
			if count > 0 && printed == count {
				return errors.New("enough messages") // stays unacknowledged, for the next time
			}
			err := print(m)
			if err != nil {
				select {
				case failed <- fmt.Errorf("print message: %w", err):
				default: // the first is enough
				}
				return err
			}
			printed++
			return nil
		},
		done: func() {
			if finished.Add(1) == uint64(count) {
				close(enough)
			}
		},
	}
	c, err := f.dial(ctx, r)
	if err != nil {
		return outOfTime(ctx, err)
	}
	err = c.subscribe(ctx, f.topics, f.qos)
	if err == nil {
		select {
		case <-enough:
		case err = <-failed:
		case err = <-c.lost():
			return err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return errors.Join(outOfTime(ctx, err), c.disconnect())
}

// outOfTime tells the end of -W from an interrupt, which is how one ends sub.
func outOfTime(ctx context.Context, err error) error {
	switch {
	case err == nil || errors.Is(ctx.Err(), context.Canceled):
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &exitError{exitTimeout, errors.New("timed out")}
	}
	return err
}

func printText(w io.Writer, m message) error {
	_, err := fmt.Fprintf(w, "%s\n", m.payload)
	return err
}

func printVerbose(w io.Writer, m message) error {
	_, err := fmt.Fprintf(w, "%s %s\n", m.topic, m.payload)
	return err
}

// printJSON prints a message as one line; payload_base64 stands for payload
// where that is no text.
func printJSON(w io.Writer, m message) error {
	line := struct {
		Topic  string  `json:"topic"`
		QoS    byte    `json:"qos"`
		Retain bool    `json:"retain"`
		Dup    bool    `json:"dup"`
		Text   *string `json:"payload,omitempty"`
		Bytes  []byte  `json:"payload_base64,omitempty"`
	}{Topic: m.topic, QoS: m.qos, Retain: m.retain, Dup: m.dup}
	if utf8.Valid(m.payload) {
		text := string(m.payload)
		line.Text = &text
	} else {
		line.Bytes = m.payload
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(line)
}
