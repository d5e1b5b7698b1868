package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's, except that connections to others end with stop:
// a target that takes connections and stays silent does not delay Close.
// Leaving is told in datagrams, which are not affected.
type transport struct {
	*memberlist.NetTransport
	stop context.Context
}

// listen binds TCP and UDP to the same port.
func listen(stop context.Context, host string, port int, l *log.Logger) (transport, error) {
	tries := 1
	if port == 0 {
		tries = bindTries
	}
	c := &memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: port, Logger: l}
	var err error
	for range tries {
		var nt *memberlist.NetTransport
		if nt, err = memberlist.NewNetTransport(c); err == nil {
			return transport{nt, stop}, nil
		}
	}
	return transport{}, err
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(t.stop, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	return &dialed{conn, context.AfterFunc(t.stop, func() { conn.Close() })}, nil
}

// dialed is a connection that is closed by itself or by the end of gossip.
type dialed struct {
	net.Conn
	forget func() bool
}

// Close implements net.Conn.
func (c *dialed) Close() error {
	c.forget()
	return c.Conn.Close()
}

// lookupOne resolves host to an IP address, IPv4 if it has one.
func lookupOne(host string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return "", err
	}
	for _, ip := range ips { // IPv4 first: listeners on 0.0.0.0 have nothing else
		if ip.IP.To4() != nil {
			return ip.IP.String(), nil
		}
	}
	return ips[0].String(), nil
}

// ownIP is an address of this machine for others to use: a private one if there
// is, else a global one; IPv4 before IPv6. memberlist chooses for 0.0.0.0, but
// would advertise "::" as it is.
func ownIP() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list the machine's addresses: %w", err)
	}
	best, most := "", 0
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		rank := 1
		if n.IP.To4() != nil {
			rank++
		}
		if n.IP.IsPrivate() {
			rank += 2
		}
		if rank > most {
			best, most = n.IP.String(), rank
		}
	}
	if best == "" {
		return "", errors.New("the machine has no address for others: set the advertised host")
	}
	return best, nil
}
