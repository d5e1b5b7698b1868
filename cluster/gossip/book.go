package gossip

import (
	"fmt"
	"sync/atomic"
)

// Book is the address book: where a node's RPC listener is. It is safe for
// concurrent use.
type Book struct {
	known  func(node string) (addr string, ok bool)
	gossip atomic.Pointer[Gossip]
}

// NewBook returns a book that asks known, which may be nil, for nodes that
// gossip does not show. known must be quick and safe for concurrent use.
func NewBook(known func(node string) (addr string, ok bool)) *Book { return &Book{known: known} }

// Use makes the book ask gossip first.
func (b *Book) Use(g *Gossip) { b.gossip.Store(g) }

// Resolve returns the "host:port" of a node: as its live process says in
// gossip, else as known says. The host may be a name.
func (b *Book) Resolve(node string) (string, error) {
	if g := b.gossip.Load(); g != nil {
		if addr, ok := g.address(node); ok {
			return addr, nil
		}
	}
	if b.known != nil {
		if addr, ok := b.known(node); ok {
			return addr, nil
		}
	}
	return "", fmt.Errorf("node %s has no known address", node)
}
