package auth

import (
	"errors"
	"fmt"
	"strings"

	"github.com/shoalmq/shoal/broker"
	"github.com/shoalmq/shoal/broker/topic"
)

// readGrants reads what a token, or a callback's answer, lets a client do: an
// object of lists of Topic Filters,
//
//	{"pub": ["a/%c/#"], "sub": ["b/#"], "all": ["c"]}
//
// or a list of rules of which the first that applies decides,
//
//	[{"permission": "deny", "action": "publish", "topic": "a/secret"}]
//
// In filters %c, or ${clientid}, is the Client Identifier, and %u, or
// ${username}, the user name. The result is never nil: what is not allowed is
// denied. What cannot be understood is an error, not an empty list.
func readGrants(v any, client, user string) ([]broker.Grant, error) {
	l := &grantList{grants: []broker.Grant{}, client: client, user: user}
	var err error
	switch v := v.(type) {
	case nil:
	case map[string]any:
		err = l.addLists(v)
	case []any:
		for _, item := range v {
			if err = l.addRule(item); err != nil {
				break
			}
		}
	default:
		err = errors.New("want an object of lists, or a list of rules")
	}
	if err != nil {
		return nil, err
	}
	return l.grants, nil
}

// grantList is a list that is being read.
type grantList struct {
	grants       []broker.Grant
	client, user string
}

func (l *grantList) add(g broker.Grant, filter string) (err error) {
	if len(l.grants) == maxGrants {
		return fmt.Errorf("more than %d rules", maxGrants)
	}
	if g.Filter, err = fill(filter, l.client, l.user); err == nil {
		l.grants = append(l.grants, g)
	}
	return err
}

// addLists reads the first form.
func (l *grantList) addLists(object map[string]any) error {
	actions := map[string]broker.Grant{"pub": {Publish: true}, "sub": {Subscribe: true}, "all": {Publish: true, Subscribe: true}}
	for name := range object {
		if _, ok := actions[name]; !ok {
			return fmt.Errorf("%q: want pub, sub or all", name)
		}
	}
	for _, name := range []string{"pub", "sub", "all"} {
		filters, ok := texts(object[name])
		if !ok {
			return fmt.Errorf("%s: want a list of topic filters, %d at most", name, maxGroups)
		}
		for _, f := range filters {
			if err := l.add(actions[name], f); err != nil {
				return err
			}
		}
	}
	return nil
}

// addRule reads a rule of the second form.
func (l *grantList) addRule(item any) error {
	object, ok := item.(map[string]any)
	if !ok {
		return errors.New("a rule is not an object")
	}
	for name := range object {
		switch name {
		case "permission", "action", "topic", "topics":
		default:
			// Something that narrows the rule, perhaps: it must not be passed over.
			return fmt.Errorf("rule with %q: known are permission, action, topic and topics", name)
		}
	}
	var g broker.Grant
	switch object["permission"] {
	case "allow":
	case "deny":
		g.Deny = true
	default:
		return fmt.Errorf("permission %v: want allow or deny", object["permission"])
	}
	switch object["action"] {
	case "publish":
		g.Publish = true
	case "subscribe":
		g.Subscribe = true
	case "all":
		g.Publish, g.Subscribe = true, true
	default:
		return fmt.Errorf("action %v: want publish, subscribe or all", object["action"])
	}
	one, ok1 := texts(object["topic"])
	more, ok2 := texts(object["topics"])
	if !ok1 || !ok2 || len(one)+len(more) == 0 {
		return errors.New("a rule wants topic or topics")
	}
	for _, f := range append(one, more...) {
		if err := l.add(g, f); err != nil {
			return err
		}
	}
	return nil
}

// fill puts names in the places that a filter has for them. A name with a
// wildcard or separator in it would widen the filter: then there are no rights
// at all.
func fill(filter, client, user string) (string, error) {
	for _, place := range []struct{ mark, name string }{{"%c", client}, {"${clientid}", client}, {"%u", user}, {"${username}", user}} {
		if strings.Contains(filter, place.mark) && (place.name == "" || strings.ContainsAny(place.name, "+#/$%\x00")) {
			return "", fmt.Errorf("%q: the name for %s is empty or has one of + # / $ %%", filter, place.mark)
		}
	}
	filter = strings.NewReplacer("%c", client, "${clientid}", client, "%u", user, "${username}", user).Replace(filter)
	if err := topic.ValidateFilter(filter); err != nil {
		return "", fmt.Errorf("%q: %w", filter, err)
	}
	return filter, nil
}
