package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// RemoteConfig says how a URL is asked. Zero values mean the defaults named.
type RemoteConfig struct {
	// Client says whom to trust and how to prove who we are: CA, certificate,
	// headers (httpclient.go).
	Client HTTPConfig
	// Refresh is how old keys may be before they are fetched again: 5 minutes.
	Refresh time.Duration
	// MaxAge is for how long keys are believed while the URL fails: 24 h.
	MaxAge time.Duration
}

// remoteKeys are the keys that a URL has. They are fetched when first needed, in
// the background when they are older than Refresh, and when a token names one
// that is not among them; by one goroutine at a time, which close waits for. An
// issuer that is down costs no client its login as long as the keys are not older
// than MaxAge; then all are refused.
type remoteKeys struct {
	url     string
	config  RemoteConfig
	client  *http.Client
	log     *slog.Logger
	now     func() time.Time
	ctx     context.Context
	cancel  context.CancelFunc
	fetches sync.WaitGroup

	mu      sync.Mutex
	keys    []key
	fetched time.Time     // zero: never
	tried   time.Time     // the last attempt's end
	failed  error         // of the last attempt
	flight  chan struct{} // closed when the attempt under way ends; nil for none
}

func newRemoteKeys(url string, c RemoteConfig, log *slog.Logger, now func() time.Time) (*remoteKeys, error) {
	or(&c.Refresh, 5*time.Minute)
	or(&c.MaxAge, 24*time.Hour)
	client, err := c.Client.open(url)
	if err != nil {
		return nil, err
	}
	r := &remoteKeys{url: url, config: c, client: client, log: log, now: now}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

func (r *remoteKeys) close() {
	r.cancel()
	r.fetches.Wait()
	r.client.CloseIdleConnections()
}

// current returns the keys. It waits only if there are none that may be believed.
func (r *remoteKeys) current(ctx context.Context) ([]key, error) {
	r.mu.Lock()
	age := r.now().Sub(r.fetched)
	if !r.fetched.IsZero() && age < r.config.MaxAge {
		defer r.mu.Unlock()
		if age > r.config.Refresh && r.now().Sub(r.tried) > refetchEvery {
			r.begin()
		}
		return r.keys, nil
	}
	r.mu.Unlock()
	keys, err := r.renew(ctx)
	if err != nil { // those of before are too old
		return nil, err
	}
	return keys, nil
}

// renew fetches the keys, unless that was tried a moment ago.
func (r *remoteKeys) renew(ctx context.Context) ([]key, error) {
	r.mu.Lock()
	if r.flight == nil {
		if !r.tried.IsZero() && r.now().Sub(r.tried) < refetchEvery {
			defer r.mu.Unlock()
			return r.keys, r.failed
		}
		r.begin()
	}
	flight := r.flight
	r.mu.Unlock()
	select {
	case <-flight:
	case <-ctx.Done():
		return nil, fmt.Errorf("fetch keys: %w", ctx.Err())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys, r.failed
}

// begin starts a fetch, unless one is under way. mu is held.
func (r *remoteKeys) begin() {
	if r.flight != nil || r.ctx.Err() != nil {
		return
	}
	flight := make(chan struct{})
	r.flight = flight
	r.fetches.Go(func() {
		keys, err := r.fetch()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.flight, r.tried, r.failed = nil, r.now(), err
		if err == nil {
			r.keys, r.fetched = keys, r.tried
		} else {
			r.log.Warn("keys of tokens cannot be fetched", "url", r.url, "error", err, "since", r.fetched)
			if r.tried.Sub(r.fetched) >= r.config.MaxAge {
				r.keys = nil
			}
		}
		close(flight)
	})
}

func (r *remoteKeys) fetch() ([]key, error) {
	ctx, cancel := context.WithTimeout(r.ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	r.config.Client.sign(request)
	response, err := r.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch keys: %s: %s", r.url, response.Status)
	}
	data, err := readBounded(response.Body, maxKeysBytes)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %s: %w", r.url, err)
	}
	return parseJWKS(data, false)
}

// readBounded reads all, and refuses more than limit bytes.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errors.New("the answer is too large")
	}
	return data, err
}

// or gives *v the value def if it has none.
func or[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
