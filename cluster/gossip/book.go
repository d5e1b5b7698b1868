package gossip

import (
	"fmt"
	"sync"
)

// Book finds the address of a node: from the living members first, then from a
// fallback that remembers. It is safe for concurrent use.
type Book struct {
	fallback func(node string) (string, bool)
	mu       sync.RWMutex
	g        *Gossip
}

// NewBook returns a Book that has only its fallback until Use.
func NewBook(fallback func(node string) (string, bool)) *Book { return &Book{fallback: fallback} }

// Use makes the members of g be looked up first.
func (b *Book) Use(g *Gossip) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.g = g
}

// Resolve returns host:port of a node, to be resolved again at every dial.
func (b *Book) Resolve(node string) (string, error) {
	b.mu.RLock()
	g := b.g
	b.mu.RUnlock()
	if g != nil {
		for _, m := range g.Members() {
			if m.Node == node {
				return m.RPCAddr, nil
			}
		}
	}
	if addr, ok := b.fallback(node); ok {
		return addr, nil
	}
	return "", fmt.Errorf("no address of node %s: gossip has not seen it and the directory does not know it", node)
}
