package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/shoalmq/shoal/broker/topic"
)

// subFlags are the flags of sub alone.
type subFlags struct {
	clientFlags
	options        subscribeOptions
	handling       string
	live, retained bool // which messages are wanted
	remove         bool
	without        []string
	unsubscribe    []string
	once           bool
	count          uint
}

// retainHandlings are the values of Retain Handling in words.
var retainHandlings = []string{"always", "new", "never"}

func (f *subFlags) add(cmd *cobra.Command) {
	f.clientFlags.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.handling, "retain-handling", "always", "send retained messages always, new (if the subscription is new) or never, MQTT 5 only")
	fs.BoolVar(&f.options.asPublished, "retain-as-published", false, "show RETAIN of live messages as published, MQTT 5 only")
	fs.BoolVar(&f.options.noLocal, "no-local", false, "not what this Client Identifier publishes, MQTT 5 only")
	fs.BoolVarP(&f.live, "no-retained", "R", false, "leave out retained messages")
	fs.BoolVar(&f.retained, "retained-only", false, "retained messages only: end with the first other one")
	fs.BoolVar(&f.remove, "remove-retained", false, "clear each retained message that comes, also with -R")
	fs.StringArrayVarP(&f.without, "filter-out", "T", nil, "leave out messages whose topic matches this filter")
	fs.StringArrayVarP(&f.unsubscribe, "unsubscribe", "U", nil, "end a subscription of the session first")
	fs.BoolVarP(&f.once, "exit-after-subscribe", "E", false, "end when subscribed")
	fs.UintVarP(&f.count, "count", "C", 0, "end after so many messages (0: never)")
}

func (f *subFlags) check() error {
	if err := f.clientFlags.check(); err != nil {
		return err
	}
	handling := slices.Index(retainHandlings, f.handling)
	f.options.retainHandling, f.options.qos = byte(max(handling, 0)), f.qos
	switch {
	case handling < 0:
		return fmt.Errorf("--retain-handling %q: want one of %s", f.handling, strings.Join(retainHandlings, ", "))
	case f.protocol() != 5 && f.options != subscribeOptions{qos: f.qos}:
		return errors.New("--retain-handling, --retain-as-published and --no-local are known to MQTT 5 only")
	case f.once && f.remove:
		return errors.New("-E waits for no message, so --remove-retained has nothing to do")
	case f.live && f.retained:
		return errors.New("-R and --retained-only leave nothing")
	}
	return nil
}

func subCommand() *cobra.Command {
	var (
		f       subFlags
		verbose bool
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
		return subscribe(ctx, &f, func(m message) error { return print(cmd.OutOrStdout(), m) })
	}
	return cmd
}

// errEnough leaves a message unacknowledged, for the next time.
var errEnough = errors.New("enough messages")

// tally counts messages up to those that are wanted.
type tally struct {
	f      *subFlags
	print  func(message) error
	failed chan error    // gets the first failure to print
	enough chan struct{} // closed at the end
	clear  chan struct{} // gets one when there is something to clear

	mu       sync.Mutex
	ended    bool // nothing more is taken
	printed  uint
	taken    uint
	finished uint
	kept     []string // topics to clear
}

// take prints a message if it is wanted.
func (t *tally) take(m message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended = t.ended || t.f.retained && !m.retain; t.ended {
		t.settle()
		return errEnough
	}
	if t.f.remove && m.retain {
		t.kept = append(t.kept, m.topic)
		select {
		case t.clear <- struct{}{}:
		default: // is told
		}
	}
	if t.wants(m) {
		if err := t.print(m); err != nil {
			select {
			case t.failed <- fmt.Errorf("print message: %w", err):
			default: // the first is enough
			}
			return err
		}
		t.printed++
		t.ended = t.printed == t.f.count
	}
	t.taken++
	return nil
}

func (t *tally) wants(m message) bool {
	return !(t.f.live && m.retain) && !slices.ContainsFunc(t.f.without, func(filter string) bool { return topic.MatchOne(filter, m.topic) })
}

// clearKept clears what is retained of the messages taken.
func (t *tally) clearKept(ctx context.Context, c client) error {
	t.mu.Lock()
	kept := t.kept
	t.kept = nil
	t.mu.Unlock()
	for _, name := range kept {
		if err := c.publish(ctx, message{topic: name, qos: 1, retain: true}); err != nil {
			return err
		}
	}
	return nil
}

// done counts a message that is finished.
func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished++
	t.settle()
}

// settle ends when all that was taken is finished. mu is held.
func (t *tally) settle() {
	if !t.ended || t.finished < t.taken {
		return
	}
	select {
	case <-t.enough:
	default:
		close(t.enough)
	}
}

// subscribe prints messages until enough of them are finished, ctx ends, or the
// connection does. A message that could not be printed is not acknowledged.
func subscribe(ctx context.Context, f *subFlags, print func(message) error) error {
	t := &tally{f: f, print: print, failed: make(chan error, 1), enough: make(chan struct{}), clear: make(chan struct{}, 1), ended: f.once}
	c, err := f.dial(ctx, receiver{take: t.take, done: t.done})
	if err != nil {
		return outOfTime(ctx, err)
	}
	if len(f.unsubscribe) > 0 {
		err = c.unsubscribe(ctx, f.unsubscribe)
	}
	if err == nil {
		err = c.subscribe(ctx, f.topics, f.options)
	}
	for over := f.once; err == nil && !over; {
		select {
		case <-t.enough:
			over = true
		case <-t.clear:
			err = t.clearKept(ctx, c)
		case err = <-t.failed:
		case err = <-c.lost():
			return err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil {
		err = t.clearKept(ctx, c)
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
