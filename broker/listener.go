package broker

import "net"

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
	full := *l
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
	return &full
}
