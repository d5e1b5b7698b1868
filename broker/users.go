package broker

import (
	"sync"

	"github.com/shoalmq/shoal/broker/packet"
)

// users counts the connections of users that have limits of their own, and holds
// what their clients publish to the users' rates. Safe for concurrent use.
type users struct {
	limits map[string]*UserLimits

	mu     sync.Mutex
	byName map[string]*user
}

// user is one that has a connection here.
type user struct {
	name string
	// clients counts the connections by Client Identifier: one that takes over its
	// own does not make one more.
	clients map[string]int
	meter   *meter
	// bounds are those of its clients, by listener.
	bounds map[*Listener]*bounds
}

func newUsers(c *Config) *users {
	return &users{limits: c.Users, byName: make(map[string]*user)}
}

// enter counts a connection of a user that has proved who it is, and returns the
// bounds of the client. A user without limits is nil, and has the listener's.
func (u *users) enter(name, client string, l *Listener) (*user, *bounds, error) {
	limits := u.limits[name]
	if limits == nil || name == "" {
		return nil, l.bounds, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	of := u.byName[name]
	if of == nil {
		of = &user{name: name, clients: make(map[string]int), meter: limits.meterOf(), bounds: make(map[*Listener]*bounds)}
		u.byName[name] = of
	}
	if n := limits.MaxConnections; n > 0 && len(of.clients) >= n && of.clients[client] == 0 {
		return nil, nil, &packet.Error{Code: packet.CodeQuotaExceeded, Packet: packet.TypeConnect, Reason: "the user has as many connections as it may"}
	}
	of.clients[client]++
	b := of.bounds[l]
	if b == nil {
		b = &bounds{Limits: l.bounds.Limits.over(&limits.Each).complete(), meters: l.bounds.meters}
		if of.meter != nil {
			b.meters = append(b.meters[:len(b.meters):len(b.meters)], of.meter)
		}
		of.bounds[l] = b
	}
	return of, b, nil
}

// leave takes back an enter. The user's debt is kept as long as it has others.
func (u *users) leave(of *user, client string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if of.clients[client]--; of.clients[client] == 0 {
		delete(of.clients, client)
	}
	if len(of.clients) == 0 && of.meter == nil {
		delete(u.byName, of.name)
	}
}
