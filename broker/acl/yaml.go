package acl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/shoalmq/shoal/broker/packet"
)

// file is the YAML form:
//
//	default: deny            # what no rule applies to; or allow
//	rules:                   # the first that applies decides
//	- allow: [publish]       # allow or deny; of publish, subscribe, connect
//	  topics: ["line/%c/#"]  # %c Client Identifier, %u user name, %{x} claim x
//	  users: [plc, "plc-*"]  # one of these, * for any text
//	  clients: ["%u-*"]
//	  groups: [maintenance]
//	  certificates: ["*.plant.example"]
//	  addresses: [10.0.0.0/8]
//	  listeners: [mqtts]
//	  claims: {site: north}  # all of these
//	  anonymous: false       # without a user name, or with one
//	  qos: [0, 1]            # of a publish
//	  retain: false          # of a publish
type file struct {
	Default string      `yaml:"default"`
	Rules   []yaml.Node `yaml:"rules"`
}

type fileRule struct {
	Allow        []string          `yaml:"allow"`
	Deny         []string          `yaml:"deny"`
	Topics       []string          `yaml:"topics"`
	Users        []string          `yaml:"users"`
	Clients      []string          `yaml:"clients"`
	Groups       []string          `yaml:"groups"`
	Certificates []string          `yaml:"certificates"`
	Addresses    []string          `yaml:"addresses"`
	Listeners    []string          `yaml:"listeners"`
	Claims       map[string]string `yaml:"claims"`
	Anonymous    *bool             `yaml:"anonymous"`
	QoS          []int             `yaml:"qos"`
	Retain       *bool             `yaml:"retain"`
}

// ParseYAML reads rules in YAML; name is for errors and the log. A key that is
// not known is an error: it may have been meant to narrow a rule.
func ParseYAML(name string, data []byte) (*Rules, error) {
	var f file
	if err := strict(data, &f); err != nil {
		return nil, err
	}
	out := &Rules{}
	switch f.Default {
	case "", "deny":
	case "allow":
		out.allow = true
	default:
		return nil, fmt.Errorf("default: %q: want allow or deny", f.Default)
	}
	var errs []error
	for i := range f.Rules {
		node := &f.Rules[i]
		r, err := parseRule(node)
		if err != nil {
			if len(errs) < 10 {
				errs = append(errs, fmt.Errorf("rule at line %d: %w", node.Line, err))
			}
			continue
		}
		r.where = fmt.Sprintf("%s:%d", name, node.Line)
		out.rules = append(out.rules, *r)
	}
	return out, errors.Join(errs...)
}

func strict(data []byte, out any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(out); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

func parseRule(node *yaml.Node) (*rule, error) {
	var f fileRule
	if err := decodeStrict(node, &f); err != nil {
		return nil, err
	}
	r := &rule{
		filters: f.Topics, users: f.Users, clients: f.Clients, groups: f.Groups, certificates: f.Certificates,
		listeners: f.Listeners, claims: f.Claims, anonymous: f.Anonymous, retain: f.Retain, deny: f.Deny != nil,
	}
	if (f.Allow == nil) == (f.Deny == nil) {
		return nil, errors.New("want either allow or deny, with a list of publish, subscribe and connect")
	}
	for _, action := range append(f.Allow, f.Deny...) {
		switch action {
		case "publish":
			r.publish = true
		case "subscribe":
			r.receive = true
		case "connect":
			r.connect = true
		default:
			return nil, fmt.Errorf("%q: want publish, subscribe or connect", action)
		}
	}
	return r, errors.Join(r.parseTopics(), r.parseAddresses(f.Addresses), r.parseConditions(f.QoS), checkLists(&f))
}

// decodeStrict is Decode of a node, which has no KnownFields of its own.
func decodeStrict(node *yaml.Node, out *fileRule) error {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.MappingNode {
		return errors.New("want keys and values")
	}
	for i := 0; i < len(node.Content); i += 2 {
		if !slices.Contains(ruleKeys, node.Content[i].Value) {
			return fmt.Errorf("unknown key %q: known are %s", node.Content[i].Value, strings.Join(ruleKeys, ", "))
		}
	}
	if err := node.Decode(out); err != nil {
		return err
	}
	for i := 0; i < len(node.Content); i += 2 {
		if empty(node.Content[i+1]) {
			return fmt.Errorf("%s: is empty, or has an empty entry; leave the key out for all", node.Content[i].Value)
		}
	}
	return nil
}

// empty finds what decodes to nothing: a list that was meant to narrow a rule, and
// has lost its entries, would widen it. Decode has seen that no alias is part of
// itself.
func empty(node *yaml.Node) bool {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node.Tag == "!!null" || slices.ContainsFunc(node.Content, empty)
}

var ruleKeys = []string{
	"allow", "deny", "topics", "users", "clients", "groups", "certificates", "addresses", "listeners", "claims", "anonymous", "qos", "retain",
}

// checkLists refuses lists that are there and empty: whether nobody is meant or
// everybody is not clear.
func checkLists(f *fileRule) error {
	for name, list := range map[string][]string{
		"topics": f.Topics, "users": f.Users, "clients": f.Clients, "groups": f.Groups,
		"certificates": f.Certificates, "addresses": f.Addresses, "listeners": f.Listeners, "allow": f.Allow, "deny": f.Deny,
	} {
		if list != nil && len(list) == 0 || slices.Contains(list, "") {
			return fmt.Errorf("%s: is empty, or has an empty entry; leave the key out for all", name)
		}
	}
	if f.QoS != nil && len(f.QoS) == 0 || f.Claims != nil && len(f.Claims) == 0 {
		return errors.New("qos or claims is empty; leave the key out for all")
	}
	return nil
}

func (r *rule) parseTopics() error {
	if r.filters == nil {
		if r.publish || r.receive {
			return errors.New("topics: is missing; want [\"#\"] for all")
		}
		return nil
	}
	if !r.publish && !r.receive {
		return errors.New("topics: a rule about connecting has none")
	}
	for _, f := range r.filters {
		if err := checkPlaces(f); err != nil {
			return fmt.Errorf("topic %q: %w", f, err)
		}
	}
	return nil
}

func (r *rule) parseAddresses(list []string) error {
	for _, text := range list {
		net, err := netip.ParsePrefix(text)
		if err != nil {
			var ip netip.Addr
			if ip, err = netip.ParseAddr(text); err == nil {
				net, err = ip.Prefix(ip.BitLen())
			}
		}
		if err != nil {
			return fmt.Errorf("address %q: want an address, or a network such as 10.0.0.0/8", text)
		}
		if ip := net.Addr(); ip.Is4In6() { // clients' addresses are IPv4 then
			if net, err = ip.Unmap().Prefix(net.Bits() - 96); err != nil {
				return fmt.Errorf("address %q: want IPv4 networks as such, 10.0.0.0/8", text)
			}
		}
		r.addresses = append(r.addresses, net.Masked())
	}
	return nil
}

func (r *rule) parseConditions(qos []int) error {
	if (qos != nil || r.retain != nil) && (r.receive || r.connect) {
		return errors.New("qos and retain are conditions of a publish; make a rule for publish alone")
	}
	for _, q := range qos {
		if q < 0 || q > 2 {
			return fmt.Errorf("qos %d: want 0, 1 or 2", q)
		}
		r.qos = append(r.qos, packet.QoS(q))
	}
	return nil
}
