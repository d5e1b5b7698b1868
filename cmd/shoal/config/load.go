package config

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/pflag"
)

// FileFlag names the flag (and SHOAL_CONFIG) of the YAML file. It is no key of
// the file itself.
const FileFlag = "config"

// AddFlags defines a flag for every key, and --config.
func AddFlags(fs *pflag.FlagSet) {
	fs.String(FileFlag, "", "YAML file with any of these keys")
	for _, k := range keys {
		usage := k.usage
		if k.fallback != "" {
			usage += fmt.Sprintf(" (default %s)", k.fallback)
		}
		f := fs.VarPF(&given{isBool: k.isBool}, k.name, "", usage)
		if k.isBool {
			f.NoOptDefVal = "true"
		}
	}
}

// given is a flag's value as it was written; the table parses it, so that a
// value is read the same way wherever it comes from.
type given struct {
	text   string
	isBool bool
}

func (g *given) Set(v string) error { g.text = v; return nil }
func (g *given) String() string     { return g.text }

func (g *given) Type() string {
	if g.isBool {
		return "bool"
	}
	return "string"
}

// Load puts the effective configuration together from flags that AddFlags
// defined, an environment in the form of os.Environ, the file that these name,
// and defaults. The error joins all problems that were found.
func Load(fs *pflag.FlagSet, environ []string) (*Config, error) {
	values, path, errs := readEnv(environ)
	if f := fs.Lookup(FileFlag); f != nil && f.Changed {
		path = f.Value.String()
	}
	in := &contents{}
	if path != "" {
		found, err := readFile(path)
		errs = append(errs, err)
		if found != nil {
			in = found
		}
		for name, s := range in.values {
			if values[name].kind < s.kind {
				values[name] = s
			}
		}
	}
	for _, k := range keys {
		if f := fs.Lookup(k.name); f != nil && f.Changed {
			values[k.name] = source{fromFlag, "--" + k.name, f.Value.String()}
		}
	}
	c := &Config{origin: values}
	errs = append(errs, c.parse()...)
	for i := range sections {
		if node := in.sections[sections[i].name]; node != nil {
			errs = append(errs, c.decodeSection(&sections[i], in.path, node))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, errors.Join(c.check()...)
}

// parse fills the fields from c.origin and the defaults.
func (c *Config) parse() (errs []error) {
	for _, k := range keys {
		s := c.origin[k.name]
		if s.value == "" && k.fallback == "" {
			delete(c.origin, k.name) // not given, or given as "none"
			continue
		}
		if s.kind == fromDefault {
			s = source{fromDefault, k.name + " (default)", k.fallback}
			c.origin[k.name] = s
		}
		if err := k.parse(c, s.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %q: %w", s.where, s.value, err))
		}
	}
	return errs
}

// check derives what depends on other keys and refuses what does not fit
// together.
func (c *Config) check() []error {
	return append([]error{
		c.deriveNodeID(),
		c.deriveAdvertiseHost(),
		c.checkAuthentication(),
		c.Limits.check(),
		c.deriveListeners(),
		c.checkAnonymous(),
		c.checkClusterTLS(),
	}, c.checkPorts()...)
}

func (c *Config) deriveNodeID() error {
	if c.NodeID != "" {
		return nil
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("node-id: read host name: %w; set --node-id", err)
	}
	if err := nodeID(name); err != nil {
		return fmt.Errorf("node-id: the host name %q cannot be one: %w; set --node-id", name, err)
	}
	c.NodeID = name
	return nil
}

func (c *Config) deriveAdvertiseHost() error {
	if c.AdvertiseHost != "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.RPCAddr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = c.NodeID
	}
	c.AdvertiseHost = host
	return nil
}

func (c *Config) checkClusterTLS() error {
	set, missing := "", ""
	for _, name := range []string{"cluster-ca", "cluster-cert", "cluster-key"} {
		if s, ok := c.origin[name]; ok {
			set = s.where
		} else {
			missing = name
		}
	}
	if set != "" && missing != "" {
		return fmt.Errorf("%s: --%s is missing: TLS between nodes wants cluster-ca, cluster-cert and cluster-key together", set, missing)
	}
	return nil
}

// checkPorts refuses two listeners on one address, where the kernel would name
// only the second.
func (c *Config) checkPorts() (errs []error) {
	seen := map[string]string{}
	listens := func(name, where, addr string) {
		if _, port, err := net.SplitHostPort(addr); err == nil && port == "0" {
			return // a port of the kernel's choice
		}
		if other, ok := seen[addr]; ok {
			errs = append(errs, fmt.Errorf("%s: %q: %s listens there already", where, addr, other))
		}
		seen[addr] = name
	}
	for i := range c.AllListeners {
		l := &c.AllListeners[i]
		listens(nameOf(l), l.where, l.Addr)
	}
	for _, name := range []string{"http-addr", "gossip-addr", "rpc-addr"} {
		if addr := keyByName(name).format(c); addr != off {
			listens(name, c.origin[name].where, addr)
		}
	}
	return errs
}

// nameOf is what an error about another key calls a listener.
func nameOf(l *Listener) string {
	if keyByName(l.Name+"-addr") != nil {
		return l.Name + "-addr"
	}
	return "listener " + l.Name
}

// Loopback tells whether only this host can reach the address.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
