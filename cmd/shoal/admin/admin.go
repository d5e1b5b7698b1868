// Package admin is the HTTP surface of a node: health, metrics and status.
//
// It starts before the node is open, so that a probe gets an answer while a
// large data directory is being read, and knows the node only as a few
// functions. What it serves:
//
//	/livez          the process can go on (200), or it is about to end (503)
//	/startupz       the data directory is open and everything is started
//	/readyz         this node serves clients now; else 503 and the reason
//	/metrics        Prometheus
//	/api/v1/status  what the node knows of itself and its cluster, JSON
//	/api/v1/digest  a hash of the state of each of its replicas, JSON: replicas
//	                of a group that have applied the same index have the same
//	/api/v1/cluster all members and shards, asked of every node, JSON
//	POST /api/v1/cluster/{drain|undrain|remove|rebalance}
//	                an operator's wish; the body is an Operation, the answer an
//	                Operated, or 409 and why not
//
// The first four say nothing secret and answer anyone who can reach the
// listener. The API answers only requests that arrive over loopback and are
// addressed to it, whatever the listener is bound to (a page in a browser that
// points a name of its own at 127.0.0.1 sends that name in Host), or that carry
// the token of a file: Authorization: Bearer.
//
// Server is safe for use by many goroutines. Its one lock is held only to
// read or replace the current phase.
package admin

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Node is what the surface asks of a node.
type Node struct {
	// Ready and Live are nil if all is well, else the reason in words.
	Ready, Live func() error
	// Status and Digest return something that encoding/json can write.
	Status, Digest func() any
	// Overview is the same of the whole cluster.
	Overview func(context.Context) any
	// Operate carries out an operator's command and says what follows.
	Operate func(ctx context.Context, command, node string, force bool) (text string, err error)
}

// Server serves the HTTP surface of one node.
type Server struct {
	registry *prometheus.Registry
	http     http.Server
	token    string // of the API, "" for none

	mu    sync.Mutex
	node  *Node  // nil until Opened
	phase string // why the node is not ready, whatever it says itself; empty when it decides
}

// New returns a server with a metrics registry of its own that has the Go
// runtime's and the process's metrics. With the token, if it is not empty, the
// API answers from elsewhere too.
func New(token string) *Server {
	s := &Server{registry: prometheus.NewRegistry(), phase: "opening the data directory", token: token}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", probe(s.live))
	mux.HandleFunc("GET /startupz", probe(s.started))
	mux.HandleFunc("GET /readyz", probe(s.ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /api/v1/status", s.allowed(s.answer(func(n *Node) any { return n.Status() })))
	mux.HandleFunc("GET /api/v1/digest", s.allowed(s.answer(func(n *Node) any { return n.Digest() })))
	mux.HandleFunc("GET /api/v1/cluster", s.allowed(s.overview))
	mux.HandleFunc("POST /api/v1/cluster/{operation}", s.allowed(s.operate))
	s.http = http.Server{
		// Web pages in an operator's browser reach loopback too.
		Handler:           http.NewCrossOriginProtection().Handler(mux),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	return s
}

const (
	// Every request is one small header.
	readTimeout    = 5 * time.Second
	maxHeaderBytes = 16 << 10
	// writeTimeout also bounds a scrape by a slow reader.
	writeTimeout = 30 * time.Second
)

// Registry is where the node's parts register their metrics.
func (s *Server) Registry() *prometheus.Registry { return s.registry }

// Serve answers on l until Close. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

// Opened tells that the node is started; from now on it is asked itself.
func (s *Server) Opened(n Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.phase = &n, ""
}

// Draining turns the node unready for good.
func (s *Server) Draining() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = "draining: the node is stopping"
}

// Close ends the server, waiting for requests under way until ctx is done.
func (s *Server) Close(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("close HTTP: %w", err), s.http.Close())
	}
	return nil
}

func (s *Server) current() (*Node, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node, s.phase
}

func (s *Server) live() error {
	if n, _ := s.current(); n != nil {
		return n.Live()
	}
	return nil
}

func (s *Server) started() error {
	if n, phase := s.current(); n == nil {
		return errors.New(phase)
	}
	return nil
}

func (s *Server) ready() error {
	n, phase := s.current()
	if phase != "" {
		return errors.New(phase)
	}
	return n.Ready()
}

// answer serves what a node says as JSON.
func (s *Server) answer(ask func(*Node) any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		n, phase := s.current()
		if n == nil {
			http.Error(w, phase, http.StatusServiceUnavailable)
			return
		}
		writeJSON(w, ask(n))
	}
}

// probe answers 200 "ok" or 503 with the reason as one line.
func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := check(); err != nil {
			http.Error(w, strings.ReplaceAll(err.Error(), "\n", "; "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// allowed lets requests through that come over loopback or carry the token.
func (s *Server) allowed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); {
		case bearer && s.token != "":
			if subtle.ConstantTimeCompare([]byte(given), []byte(s.token)) != 1 {
				http.Error(w, "wrong token", http.StatusUnauthorized)
				return
			}
		case !overLoopback(r) && s.token != "":
			http.Error(w, "from elsewhere than loopback the API wants the token of http-token-file", http.StatusUnauthorized)
			return
		case !overLoopback(r):
			http.Error(w, "the API answers only over loopback: http-token-file opens it to those who know a token", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

func overLoopback(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return local != nil && loopback(local.String()) && loopback(r.RemoteAddr) && loopback(r.Host)
}

// loopback takes host or host:port.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
