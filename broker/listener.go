package broker

import (
	"net"
	"slices"
	"sync"
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
	// Unannounced: its clients are not told Config.Elsewhere, which is the address
	// of another kind of listener.
	Unannounced bool
	// Limits are those of the listener.
	Limits ListenerLimits

	bounds  *bounds
	gate    *gate        // nil for no rate of its own
	serving atomic.Int64 // connections that have sent CONNECT
	counts  *doorCounts
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
	// An error that is an OpenError says what it counts as.
	Open() (*Peer, error)
}

// Bare is an Accepted of which Open may leave nothing but a TCP connection, which
// then needs no goroutine that waits.
type Bare interface {
	Accepted
	// Bare is called after Open. It gives the TCP connection away, with what was
	// read of it beyond its beginning; nil if something is still wrapped around it.
	Bare() (tcp *net.TCPConn, read []byte)
}

// OpenError is a failure of Accepted.Open of a certain kind.
type OpenError struct {
	// Kind is what metrics call it, one of OpenFailures.
	Kind string
	Err  error
}

func (e *OpenError) Error() string { return e.Err.Error() }

func (e *OpenError) Unwrap() error { return e.Err }

// The kinds of OpenError. Any other error counts as OpenLost.
const (
	OpenProxy       = "proxy_header"
	OpenNotTLS      = "not_tls"     // the client speaks something else
	OpenTLS         = "tls"         // versions, suites, or the client does not trust us
	OpenCertificate = "certificate" // the client's: missing, unknown, expired, revoked
	OpenWebSocket   = "websocket"
	OpenLost        = "lost" // the client went away
	OpenLate        = "late" // it took longer than Config.ConnectTimeout
)

// openFailures are all of them.
var openFailures = [...]string{OpenProxy, OpenNotTLS, OpenTLS, OpenCertificate, OpenWebSocket, OpenLost, OpenLate}

// doorCounts are the metrics of a listener, or of all with the same name.
type doorCounts struct {
	connections atomic.Int64
	connects    atomic.Uint64 // accepted CONNECTs
	refused     atomic.Uint64 // refused CONNECTs
	failed      [len(openFailures)]atomic.Uint64
	logged      atomic.Int64 // the second of the last line about a stranger
}

// openFailed counts a failure.
func (d *doorCounts) openFailed(kind string) {
	i := max(slices.Index(openFailures[:], kind), 0)
	d.failed[i].Add(1)
}

// doors are the counts by the name of the listener. Safe for concurrent use.
type doors struct {
	mu     sync.Mutex
	byName map[string]*doorCounts
}

func (d *doors) of(name string) *doorCounts {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byName == nil {
		d.byName = make(map[string]*doorCounts)
	}
	if d.byName[name] == nil {
		d.byName[name] = &doorCounts{}
	}
	return d.byName[name]
}

// each calls f for all, in no order.
func (d *doors) each(f func(name string, counts *doorCounts)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, counts := range d.byName {
		f(name, counts)
	}
}

// listener is a copy of l, complete.
func (c *Config) listener(l *Listener) *Listener {
	full := &Listener{
		Listener: l.Listener, Name: l.Name, AllowAnonymous: l.AllowAnonymous,
		Authenticator: l.Authenticator, Enhanced: l.Enhanced, Authorizer: l.Authorizer, Limits: l.Limits,
		Unannounced: l.Unannounced,
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
