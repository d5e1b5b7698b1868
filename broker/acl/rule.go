package acl

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/packet"
)

// rule is one of a list, of which the first that applies decides.
type rule struct {
	where string // for the log: "acl:12"
	deny  bool
	// What it is about.
	publish, receive, connect bool
	// filters may have places for names (names.go). A rule about connecting alone
	// has none.
	filters []string
	// pattern: a "pattern" line of Mosquitto's. If a name of the client has + or #,
	// nothing is allowed from there on, as Mosquitto has it; other characters are
	// taken.
	pattern bool
	// literal filters have no places for names.
	literal bool
	// Whom it is about: all that are given have to hold; of a list one entry has to.
	user         *string // exactly; empty is a client without a user name
	anonymous    *bool
	users        []string
	clients      []string
	groups       []string
	certificates []string
	addresses    []netip.Prefix
	listeners    []string
	claims       map[string]string
	// Conditions of a PUBLISH.
	qos    []packet.QoS
	retain *bool
}

// Rules is what a file says.
type Rules struct {
	rules []rule
	// allow is for what no rule applies to.
	allow  bool
	shared shared
}

// concerns tells whether the rule is about the client.
func (r *rule) concerns(c *broker.Client) bool {
	who := c.Identity
	switch {
	case r.user != nil && *r.user != who.Username:
	case r.anonymous != nil && *r.anonymous != (who.Username == ""):
	case r.users != nil && !anyName(r.users, who.Username, c):
	case r.clients != nil && !anyName(r.clients, c.ID, c):
	case r.groups != nil && !slices.ContainsFunc(who.Groups, func(g string) bool { return anyName(r.groups, g, c) }):
	case r.certificates != nil && !anyName(r.certificates, c.Peer.CertifiedName(), c):
	case r.addresses != nil && !r.from(c.Peer):
	case r.listeners != nil && (c.Peer == nil || !anyName(r.listeners, c.Peer.Listener, c)):
	case !r.claimed(who):
	default:
		return true
	}
	return false
}

// anyName tells whether name is one of a list, in which * stands for any text and
// %u and %c for what the client is called.
func anyName(list []string, name string, c *broker.Client) bool {
	return name != "" && slices.ContainsFunc(list, func(pattern string) bool {
		return glob(pattern, name, c)
	})
}

// glob goes through the name once, piece by piece of the pattern: Client
// Identifiers are long if a client wants to, and to try all ways of several *
// would be work for hours. The client's names have no * of their own.
func glob(pattern, name string, c *broker.Client) bool {
	if strings.Contains(pattern, "%c") && c.ID == "" || strings.Contains(pattern, "%u") && c.Identity.Username == "" {
		return false
	}
	own := strings.NewReplacer("%c", c.ID, "%u", c.Identity.Username)
	pieces := strings.Split(pattern, "*")
	for i := range pieces {
		pieces[i] = own.Replace(pieces[i])
	}
	name, ok := strings.CutPrefix(name, pieces[0])
	if !ok || len(pieces) == 1 {
		return ok && name == ""
	}
	last := len(pieces) - 1
	for _, piece := range pieces[1:last] {
		if _, name, ok = strings.Cut(name, piece); !ok {
			return false
		}
	}
	return strings.HasSuffix(name, pieces[last])
}

func (r *rule) from(p *broker.Peer) bool {
	if p == nil || p.Remote == nil {
		return false
	}
	tcp, ok := p.Remote.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	return ok && slices.ContainsFunc(r.addresses, func(net netip.Prefix) bool { return net.Contains(ip.Unmap()) })
}

func (r *rule) claimed(who *broker.Identity) bool {
	for name, want := range r.claims {
		if have, ok := who.Claims[name]; !ok || have != want {
			return false
		}
	}
	return true
}

// appliesTo tells whether the conditions of a PUBLISH hold.
func (r *rule) appliesTo(qos packet.QoS, retain bool) bool {
	return (r.qos == nil || slices.Contains(r.qos, qos)) && (r.retain == nil || *r.retain == retain)
}
