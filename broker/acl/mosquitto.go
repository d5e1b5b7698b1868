package acl

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/shoalmq/shoal/broker/topic"
)

// ParseMosquitto reads Mosquitto's acl_file; name is for errors and the log. What
// it means is what Mosquitto 2.0 makes of it:
//
//   - "topic" lines before the first "user" line are for clients without a user
//     name, those after it for the user;
//   - a user's denials come before what it is allowed, wherever they stand, and
//     both before the patterns, which are for everybody and have their denials
//     first too;
//   - what no line allows is denied.
//
// One thing is different: a subscription that can bring nothing is refused, where
// Mosquitto grants it, and delivers nothing either.
func ParseMosquitto(name string, data []byte) (*Rules, error) {
	var p mosquittoFile
	var errs []error
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if err := p.line(fmt.Sprintf("%s:%d", name, n), strings.TrimSpace(string(line))); err != nil && len(errs) < 10 {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r := &Rules{}
	for _, part := range [][]rule{p.denials, p.allowed, p.patternDenials, p.patterns} {
		r.rules = append(r.rules, part...)
	}
	return r, nil
}

// mosquittoFile is a file that is being read.
type mosquittoFile struct {
	user                                       string // of the last "user" line; empty for clients without
	denials, allowed, patternDenials, patterns []rule
}

func (p *mosquittoFile) line(where, text string) error {
	if text == "" || text[0] == '#' {
		return nil
	}
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "user":
		if rest == "" {
			return errors.New("user: want a name")
		}
		p.user = rest
		return nil
	case "topic", "pattern":
		return p.topic(where, word == "pattern", rest)
	}
	return fmt.Errorf("%q: want user, topic or pattern", word)
}

// topic reads what is after the word "topic" or "pattern": an access, or none for
// readwrite, and a filter, which may have blanks in it.
func (p *mosquittoFile) topic(where string, pattern bool, rest string) error {
	access, filter, two := strings.Cut(rest, " ")
	filter = strings.TrimSpace(filter)
	r := rule{where: where, pattern: pattern}
	switch {
	case !two:
		access, filter = "readwrite", rest
		fallthrough
	case access == "readwrite":
		r.publish, r.receive = true, true
	case access == "read":
		r.receive = true
	case access == "write":
		r.publish = true
	case access == "deny":
		r.deny, r.publish, r.receive = true, true, true
	default: // the filter begins with a word and a blank
		return fmt.Errorf("%q: want read, write, readwrite or deny before the topic", access)
	}
	if filter == "" {
		return errors.New("want a topic")
	}
	check := topic.ValidateFilter
	if pattern {
		check = checkPlaces
	}
	if err := check(filter); err != nil {
		return fmt.Errorf("topic %q: %w", filter, err)
	}
	r.filters = []string{filter}
	if pattern {
		p.add(&p.patternDenials, &p.patterns, r)
		return nil
	}
	user := p.user
	r.user, r.literal = &user, true
	p.add(&p.denials, &p.allowed, r)
	return nil
}

func (p *mosquittoFile) add(denials, allowed *[]rule, r rule) {
	if r.deny {
		*denials = append(*denials, r)
	} else {
		*allowed = append(*allowed, r)
	}
}
