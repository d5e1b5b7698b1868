package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalmq/shoal/cluster"
	"github.com/shoalmq/shoal/cmd/shoal/admin"
)

const (
	// askTimeout is longer than a node takes to find the directory's leader.
	askTimeout     = 20 * time.Second
	maxAnswerBytes = 16 << 20
)

// api is the HTTP API of a node, any of the cluster.
type api struct {
	addr      string
	tokenFile string
	every     time.Duration // between looks of --wait
}

// apiFlags adds the flags that say which node to ask.
func apiFlags(flags *pflag.FlagSet) *api {
	a := &api{every: waitEvery}
	addr := os.Getenv("SHOAL_HTTP_ADDR")
	if addr == "" {
		addr = "127.0.0.1:18083"
	}
	flags.StringVar(&a.addr, "http-addr", addr, "HTTP address of a node, any of the cluster")
	flags.StringVar(&a.tokenFile, "http-token-file", os.Getenv("SHOAL_HTTP_TOKEN_FILE"), "file with the token of the API, for nodes on other hosts")
	return a
}

// readToken reads a token from a file; no file is no token.
func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token (http-token-file): %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return "", fmt.Errorf("read token (http-token-file): %s holds %d characters; want at least 16", path, len(token))
	}
	return token, nil
}

// call sends a request and reads the answer into answer. what names it in
// errors.
func (a *api) call(parent context.Context, what, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(parent, askTimeout)
	defer cancel()
	addr := strings.TrimSuffix(strings.TrimPrefix(a.addr, "http://"), "/")
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, in)
	if err != nil {
		return usage(fmt.Errorf("--http-addr %q: want host:port", a.addr))
	}
	token, err := readToken(a.tokenFile)
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return unreachable{fmt.Errorf("%s: no answer from %s: %w (--http-addr names a node to ask)", what, addr, reason(err))}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return unreachable{fmt.Errorf("%s: the answer of %s broke off: %w", what, addr, err)}
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusConflict: // refused, and why
		return fmt.Errorf("%s", strings.TrimSpace(string(text)))
	default:
		return fmt.Errorf("%s: %s answers %s: %s", what, addr, resp.Status, strings.TrimSpace(string(text)))
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s: read answer of %s: %w", what, addr, err)
	}
	return nil
}

// unreachable is the error of a node that does not answer: another may, or the
// same one later.
type unreachable struct{ error }

// reason leaves out what http.Client says about a request that we name ourselves.
func reason(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

func (a *api) status(ctx context.Context) (*cluster.Status, error) {
	s := new(cluster.Status)
	return s, a.call(ctx, "ask for status", http.MethodGet, "/api/v1/status", nil, s)
}

func (a *api) overview(ctx context.Context) (*cluster.Overview, error) {
	o := new(cluster.Overview)
	return o, a.call(ctx, "ask for the cluster", http.MethodGet, "/api/v1/cluster", nil, o)
}

func (a *api) operate(ctx context.Context, command, node string, force bool) (text string, err error) {
	var done admin.Operated
	err = a.call(ctx, command, http.MethodPost, "/api/v1/cluster/"+command, admin.Operation{Node: node, Force: force}, &done)
	return done.Text, err
}

// apiCommand makes a command that shows something of the API.
func apiCommand[T any](use, short string, ask func(*api, context.Context) (T, error), write func(io.Writer, T) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	a := apiFlags(cmd.Flags())
	output := outputFlag(cmd, "table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		answer, err := ask(a, cmd.Context())
		if err != nil {
			return err
		}
		if output.json() {
			return writeJSON(cmd.OutOrStdout(), answer)
		}
		return write(cmd.OutOrStdout(), answer)
	}
	return cmd
}
