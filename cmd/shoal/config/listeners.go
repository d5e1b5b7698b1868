package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Listener is one place where clients connect.
type Listener struct {
	// Name is for logs, metrics and rules.
	Name string `yaml:"name"`
	// Addr is host:port, or unix: and a path.
	Addr string `yaml:"addr"`
	// Protocol is mqtt or ws.
	Protocol string `yaml:"protocol,omitempty"`
	// Path is that of WebSockets, and Origins are patterns of the hosts whose pages
	// may connect; none is any.
	Path    string   `yaml:"path,omitempty"`
	Origins []string `yaml:"origins,omitempty"`
	// Mode is the permissions of a Unix socket.
	Mode FileMode     `yaml:"mode,omitempty"`
	TLS  *ListenerTLS `yaml:"tls,omitempty"`
	// ProxyFrom are the addresses that send PROXY headers.
	ProxyFrom []Network `yaml:"proxy-protocol-from,omitempty"`
	// AllowAnonymous is never nil once the configuration is checked.
	AllowAnonymous *bool `yaml:"allow-anonymous,omitempty"`
	// Limits are those of the listener, and of each client there.
	Limits ListenerLimits `yaml:"limits,omitempty"`

	// where it was found, as an error says it.
	where string
}

// ListenerTLS says how a listener speaks TLS. Files are PEM.
type ListenerTLS struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client-ca,omitempty"`
	// ClientCert is none, request or require.
	ClientCert string `yaml:"client-cert,omitempty"`
	CRL        string `yaml:"crl,omitempty"`
	// MinVersion is 1.2 or 1.3.
	MinVersion string `yaml:"min-version,omitempty"`
}

// Path of the Unix socket, empty for TCP.
func (l *Listener) unixPath() string {
	path, ok := strings.CutPrefix(l.Addr, "unix:")
	if !ok {
		return ""
	}
	return path
}

// Endpoint is network and address as package net has them.
func (l *Listener) Endpoint() (network, addr string) {
	if path := l.unixPath(); path != "" {
		return "unix", path
	}
	return "tcp", l.Addr
}

// guarded tells whether not just anyone can connect, authentication aside. Behind
// a proxy there may be anyone.
func (l *Listener) guarded() bool {
	return l.unixPath() != "" || Loopback(l.Addr) && len(l.ProxyFrom) == 0 || l.TLS != nil && l.TLS.ClientCert == "require"
}

// Network is an address or a range of them, as it is written.
type Network struct{ netip.Prefix }

// UnmarshalYAML is part of yaml.Unmarshaler.
func (n *Network) UnmarshalYAML(node *yaml.Node) (err error) {
	if n.Prefix, err = parseNetwork(node.Value); err != nil {
		return fmt.Errorf("line %d: %q: %w", node.Line, node.Value, err)
	}
	return nil
}

// MarshalYAML is part of yaml.Marshaler.
func (n Network) MarshalYAML() (any, error) { return n.String(), nil }

func parseNetwork(v string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err != nil || p != p.Masked() {
		return p, errors.New("want an address or a range such as 10.0.0.0/8")
	}
	return p, nil
}

func parseNetworks(v string) (all []Network, err error) {
	for part := range strings.SplitSeq(v, ",") {
		p, err := parseNetwork(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		all = append(all, Network{p})
	}
	return all, nil
}

// FileMode is permissions in octal digits.
type FileMode os.FileMode

// UnmarshalYAML is part of yaml.Unmarshaler.
func (m *FileMode) UnmarshalYAML(node *yaml.Node) error {
	v, err := parseMode(node.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q: %w", node.Line, node.Value, err)
	}
	*m = v
	return nil
}

// MarshalYAML is part of yaml.Marshaler.
func (m FileMode) MarshalYAML() (any, error) { return m.String(), nil }

func (m FileMode) String() string { return fmt.Sprintf("0%03o", uint32(m)) }

func parseMode(v string) (FileMode, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v, "0o"), 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return 0, errors.New("want permissions in octal, such as 0660")
	}
	return FileMode(n), nil
}

// byKeys are the listeners that keys name.
func (c *Config) byKeys() (all []Listener) {
	add := func(name, addr, protocol string, t *ListenerTLS) {
		if addr == "" {
			return
		}
		l := Listener{where: c.origin[name+"-addr"].where, Name: name, Addr: addr, Protocol: protocol, TLS: t, ProxyFrom: c.ProxyFrom}
		if protocol == "ws" {
			l.Path = c.WSPath
		}
		all = append(all, l)
	}
	add("mqtt", c.MQTTAddr, "mqtt", nil)
	add("mqtts", c.MQTTSAddr, "mqtt", c.tls())
	add("ws", c.WSAddr, "ws", nil)
	add("wss", c.WSSAddr, "ws", c.tls())
	if c.UnixSocket != "" {
		all = append(all, Listener{where: c.origin["unix-socket"].where, Name: "unix", Addr: "unix:" + c.UnixSocket, Protocol: "mqtt", Mode: c.UnixSocketMode})
	}
	return all
}

func (c *Config) tls() *ListenerTLS { t := c.TLS; return &t }

// deriveListeners puts all listeners together and checks each.
func (c *Config) deriveListeners() error {
	c.AllListeners = append(c.byKeys(), slices.Clone(c.Listeners)...)
	if len(c.AllListeners) == 0 {
		return fmt.Errorf("%s: \"off\": there is no listener at all", c.origin["mqtt-addr"].where)
	}
	var errs []error
	seen := map[string]bool{}
	for i := range c.AllListeners {
		l := &c.AllListeners[i]
		or(&l.where, "listeners: "+l.Name)
		if err := l.complete(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.where, err))
		}
		if seen[l.Name] {
			errs = append(errs, fmt.Errorf("%s: another listener has this name", l.where))
		}
		seen[l.Name] = true
	}
	return errors.Join(errs...)
}

var listenerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// complete fills in defaults and refuses what cannot be.
func (l *Listener) complete() error {
	if !listenerName.MatchString(l.Name) {
		return errors.New("name: want 1 to 64 letters, digits, '.', '_' or '-'")
	}
	if strings.HasPrefix(l.Addr, "unix:") {
		if err := socketPath(l.unixPath()); err != nil {
			return fmt.Errorf("addr: %q: %w", l.Addr, err)
		}
	} else if err := address(l.Addr); err != nil {
		return fmt.Errorf("addr: %q: %w, or unix:/path", l.Addr, err)
	}
	or(&l.Protocol, "mqtt")
	if err := oneOf("mqtt", "ws")(l.Protocol); err != nil {
		return fmt.Errorf("protocol: %q: %w", l.Protocol, err)
	}
	switch {
	case l.Protocol == "ws":
		or(&l.Path, "/mqtt")
		if err := urlPath(l.Path); err != nil {
			return fmt.Errorf("path: %q: %w", l.Path, err)
		}
		for _, o := range l.Origins {
			if _, err := filepath.Match(o, ""); o == "" || err != nil {
				return fmt.Errorf("origins: %q: want a host, or a pattern such as *.example.com", o)
			}
		}
	case l.Path != "" || len(l.Origins) > 0:
		return errors.New("path and origins are for protocol: ws")
	}
	if l.unixPath() != "" && len(l.ProxyFrom) > 0 {
		return errors.New("proxy-protocol-from: the clients of a Unix socket have no addresses")
	}
	if l.TLS != nil {
		if err := l.TLS.complete(); err != nil {
			return err
		}
	}
	return l.Limits.check()
}

func (t *ListenerTLS) complete() error {
	if t.Cert == "" || t.Key == "" {
		return errors.New("TLS wants a certificate and its key (tls-cert and tls-key, or cert and key of tls)")
	}
	for _, path := range []string{t.Cert, t.Key, t.ClientCA, t.CRL} {
		if err := readable(path); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	if t.ClientCert == "" {
		t.ClientCert = "none"
		if t.ClientCA != "" {
			t.ClientCert = "require"
		}
	}
	or(&t.MinVersion, "1.2")
	if err := oneOf("none", "request", "require")(t.ClientCert); err != nil {
		return fmt.Errorf("client-cert: %q: %w", t.ClientCert, err)
	}
	if err := oneOf("1.2", "1.3")(t.MinVersion); err != nil {
		return fmt.Errorf("min-version: %q: %w", t.MinVersion, err)
	}
	switch {
	case t.ClientCert != "none" && t.ClientCA == "":
		return errors.New("client certificates are asked for: client-ca must name the authorities that they are checked with")
	case t.CRL != "" && t.ClientCert == "none":
		return errors.New("crl is for client certificates, which are not asked for")
	}
	return nil
}

// or gives a text its default.
func or(v *string, fallback string) {
	if *v == "" {
		*v = fallback
	}
}

// maxSocketPath is what sockaddr_un has room for.
const maxSocketPath = 107

func socketPath(v string) error {
	if v == "" || len(v) > maxSocketPath {
		return fmt.Errorf("want a path of 1 to %d bytes", maxSocketPath)
	}
	return nil
}

func urlPath(v string) error {
	if !strings.HasPrefix(v, "/") || strings.ContainsAny(v, "?# \t") {
		return errors.New("want the path of a URL, such as /mqtt")
	}
	return nil
}

// checkAnonymous keeps a broker without authentication from being opened to a
// network by accident.
func (c *Config) checkAnonymous() error {
	s, said := c.origin["allow-anonymous"]
	if !said {
		c.AllowAnonymous = !c.Authenticates()
	}
	var errs []error
	open := false
	for i := range c.AllListeners {
		l := &c.AllListeners[i]
		if l.AllowAnonymous == nil {
			allow := c.AllowAnonymous
			l.AllowAnonymous = &allow
			if !said && allow && !l.guarded() {
				errs = append(errs, fmt.Errorf("%s: %q: this listener would let anyone in from beyond this host; bind to 127.0.0.1, configure authentication (password-file), or say that it is meant with --allow-anonymous", l.where, l.Addr))
			}
		}
		open = open || *l.AllowAnonymous
	}
	if said && !open && !c.Authenticates() {
		errs = append(errs, fmt.Errorf("%s: %q: nobody could connect: configure authentication (password-file) too", s.where, s.value))
	}
	return errors.Join(errs...)
}
