package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// maxLineBytes bounds a line of -l to what brokers take as a payload.
const maxLineBytes = 1 << 20

// pubFlags are the flags of pub alone.
type pubFlags struct {
	clientFlags
	text, file              string
	lines, whole, empty     bool
	retain                  bool
	messageExpiry, repeated uint32
	pause                   float64 // seconds
}

func pubCommand() *cobra.Command {
	var f pubFlags
	cmd := &cobra.Command{
		Use:   "pub -t topic {-m message | -n | -f file | -s | -l}",
		Short: "Publish messages; the exit code is 0 when all are acknowledged",
	}
	f.add(cmd)
	fs := cmd.Flags()
	fs.StringVarP(&f.text, "message", "m", "", "the message")
	fs.BoolVarP(&f.empty, "null-message", "n", false, "an empty message; with -r it clears the topic's retained message")
	fs.StringVarP(&f.file, "file", "f", "", "a file whose content is the message")
	fs.BoolVarP(&f.whole, "stdin-file", "s", false, "all of standard input is the message")
	fs.BoolVarP(&f.lines, "stdin-line", "l", false, "each line of standard input is a message")
	fs.BoolVarP(&f.retain, "retain", "r", false, "keep the message as the topic's retained one")
	fs.Uint32Var(&f.messageExpiry, "message-expiry", 0, "seconds until the message is worthless, MQTT 5 only (0: never)")
	fs.Uint32Var(&f.repeated, "repeat", 1, "publish the message so many times")
	fs.Float64Var(&f.pause, "repeat-delay", 0, "seconds between the times")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(f.check(), oneMessage(cmd), plainTopic(f.topics), f.checkMessage()); err != nil {
			return usage(err)
		}
		source, err := f.source(cmd.InOrStdin())
		if err != nil {
			return err
		}
		return publishAll(cmd.Context(), &f, source)
	}
	return cmd
}

func oneMessage(cmd *cobra.Command) error {
	given := 0
	for _, name := range []string{"message", "null-message", "file", "stdin-file", "stdin-line"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	if given != 1 {
		return errors.New("want one of -m message, -n (empty message), -f file, -s (all of standard input) and -l (its lines)")
	}
	return nil
}

func (f *pubFlags) checkMessage() error {
	switch {
	case f.lines && f.repeated != 1:
		return errors.New("--repeat does not go with -l")
	case f.pause < 0:
		return errors.New("--repeat-delay: want seconds")
	case f.messageExpiry > 0 && f.protocol() != 5:
		return errors.New("--message-expiry is known to MQTT 5 only")
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

// source returns what gives the payloads, one for each call, until io.EOF.
func (f *pubFlags) source(in io.Reader) (next func() ([]byte, error), err error) {
	payload := []byte(f.text)
	switch {
	case f.lines:
		return byLine(in), nil
	case f.whole:
		payload, err = io.ReadAll(in)
	case f.file != "":
		payload, err = os.ReadFile(f.file)
	}
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	left := f.repeated
	return func() ([]byte, error) {
		if left == 0 {
			return nil, io.EOF
		}
		left--
		return payload, nil
	}, nil
}

func byLine(in io.Reader) func() ([]byte, error) {
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxLineBytes)
	return func() ([]byte, error) {
		switch {
		case s.Scan():
			return s.Bytes(), nil
		case s.Err() != nil:
			return nil, fmt.Errorf("read standard input: %w", s.Err())
		}
		return nil, io.EOF
	}
}

// publishAll publishes what next gives, each after the one before is
// acknowledged.
func publishAll(ctx context.Context, f *pubFlags, next func() ([]byte, error)) error {
	c, err := f.dial(ctx, receiver{take: func(message) error { return nil }, done: func() {}})
	if err != nil {
		return err
	}
	if err := publishEach(ctx, c, f, next); err != nil {
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

func publishEach(ctx context.Context, c client, f *pubFlags, next func() ([]byte, error)) error {
	m := message{topic: f.topics[0], qos: f.qos, retain: f.retain, expiry: f.messageExpiry}
	for first := true; ; first = false {
		payload, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !first && f.pause > 0 {
			select {
			case <-time.After(time.Duration(f.pause * float64(time.Second))):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		m.payload = payload
		if err := c.publish(ctx, m); err != nil {
			return err
		}
	}
}
