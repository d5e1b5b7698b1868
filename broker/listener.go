package broker

import (
	"net"
	"sync/atomic"
	"time"
)

// Listener is where clients connect, and what holds for those that do so there.
// What is zero is as Config says.
type Listener struct {
	net.Listener
	// Name is what logs, metrics and rules call it; its address by default.
	Name string
	// AllowAnonymous admits clients without User Name, Password and certificate.
	// nil: as Config says.
	AllowAnonymous *bool
	// Authenticator, Enhanced and Authorizer decide in the place of Config's.
	Authenticator Authenticator
	Enhanced      EnhancedAuthenticator
	Authorizer    Authorizer
	// Limits are those of the listener.
	Limits ListenerLimits

	bounds  *bounds
	gate    *gate        // nil for no rate of its own
	serving atomic.Int64 // connections that have sent CONNECT
}

// ListenerLimits are those of a listener.
type ListenerLimits struct {
	Quota
	// ConnectRate is how many connections are accepted per second at most: the
	// others wait in the backlog. 0 for no bound but the node's.
	ConnectRate float64
	// Each of its clients has these.
	Each Limits
}

// Accepted is a connection that knows more of its peer than an address, or has
// more to do before MQTT begins. Connections of a Listener may implement it.
type Accepted interface {
	net.Conn
	// Open does what comes before MQTT, such as a PROXY header, the handshake of
	// TLS and the upgrade to WebSocket. It is called once, before Read and Write,
	// from a goroutine of the connection; Close interrupts it. It returns who is at
	// the other end. The Listener field is set by the caller.
	Open() (*Peer, error)
}

// listener is a copy of l, complete.
func (c *Config) listener(l *Listener) *Listener {
	full := &Listener{
		Listener: l.Listener, Name: l.Name, AllowAnonymous: l.AllowAnonymous,
		Authenticator: l.Authenticator, Enhanced: l.Enhanced, Authorizer: l.Authorizer, Limits: l.Limits,
	}
	full.bounds = &bounds{Limits: c.limits().over(&l.Limits.Each).complete()}
	if m := l.Limits.meterOf(); m != nil {
		full.bounds.meters = []*meter{m}
	}
	if rate := l.Limits.ConnectRate; rate > 0 {
		full.gate = &gate{most: rate, rate: rate, tokens: rate, at: time.Now()}
	}
	if full.Name == "" && l.Listener != nil {
		full.Name = l.Addr().String()
	}
	if full.AllowAnonymous == nil {
		full.AllowAnonymous = &c.AllowAnonymous
	}
	if full.Authenticator == nil {
		full.Authenticator = c.Authenticator
	}
	if full.Enhanced == nil {
		full.Enhanced = c.Enhanced
	}
	if full.Authorizer == nil {
		full.Authorizer = c.Authorizer
	}
	return full
}
