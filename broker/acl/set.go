package acl

import (
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/shoalmq/shoal/broker"
)

// Set is a broker.Authorizer with the rules of a file, or with none: then clients
// may do what came with their identity, or everything. Safe for concurrent use.
type Set struct {
	path  string
	parse func(name string, data []byte) (*Rules, error)
	log   *slog.Logger
	rules atomic.Pointer[Rules]
}

// NewSet returns a Set that allows nothing until Load; with an empty path, one
// without a file. parse is ParseMosquitto or ParseYAML.
func NewSet(path string, parse func(string, []byte) (*Rules, error), log *slog.Logger) *Set {
	s := &Set{path: path, parse: parse, log: log}
	s.rules.Store(&Rules{allow: path == ""})
	return s
}

// Load reads the file. With an error the rules stay as they are. Clients that are
// connected are held to new rules from their next packet on.
func (s *Set) Load() error {
	data, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	r, err := s.parse(s.path, data)
	if err != nil {
		return fmt.Errorf("rules of %s: %w", s.path, err)
	}
	s.rules.Store(r)
	return nil
}

// Permissions is part of broker.Authorizer.
func (s *Set) Permissions(c *broker.Client) (broker.Permissions, error) {
	rules := s.rules.Load()
	chosen, connect := rules.choose(c)
	if !connect {
		s.log.Debug("client may not connect", "client", c.ID, "user", c.Identity.Username)
		return nil, fmt.Errorf("%w to connect by this name, from here", broker.ErrNotAuthorized)
	}
	if s.path == "" && c.Identity.Grants == nil {
		return nil, nil
	}
	return newPermissions(s, c, rules, chosen), nil
}

// granted are the rules of grants.
func granted(grants []broker.Grant) *clauses {
	if grants == nil {
		return nil
	}
	out := &clauses{common: &list{}}
	for i := range grants {
		g := &grants[i]
		r := &rule{where: "the identity's own rights", deny: g.Deny, publish: g.Publish, receive: g.Subscribe}
		out.common.add(clause{r, g.Filter, int32(i)})
	}
	out.common.makeIndex()
	return out
}
