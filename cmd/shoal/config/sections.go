package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// section is a part of the file that a flag cannot say: a mapping, or a list of
// them, decoded into a field of Config. Its types carry yaml tags, which are the
// only keys that there are.
type section struct {
	name  string
	field func(*Config) any // a pointer
}

// sections is the table of them.
var sections = []section{
	{"listeners", func(c *Config) any { return &c.Listeners }},
	{"authentication", func(c *Config) any { return &c.Authentication }},
	{"limits", func(c *Config) any { return &c.Limits }},
}

func sectionByName(name string) *section {
	for i := range sections {
		if sections[i].name == name {
			return &sections[i]
		}
	}
	return nil
}

// decodeSection decodes a section strictly. Errors say where in the file.
func (c *Config) decodeSection(s *section, path string, node *yaml.Node) error {
	out := s.field(c)
	if err := knownKeys(path, node, reflect.TypeOf(out)); err != nil {
		return err
	}
	if err := node.Decode(out); err != nil {
		return fmt.Errorf("%s:%d: %s: %w", path, node.Line, s.name, err)
	}
	return nil
}

// knownKeys refuses keys that the type does not have.
func knownKeys(path string, node *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	var errs []error
	switch {
	case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, item := range node.Content {
			errs = append(errs, knownKeys(path, item, t.Elem()))
		}
	case node.Kind == yaml.MappingNode && t.Kind() == reflect.Map:
		for i := 1; i < len(node.Content); i += 2 {
			errs = append(errs, knownKeys(path, node.Content[i], t.Elem()))
		}
	case node.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		fields, names := fieldsByKey(t)
		for i := 0; i < len(node.Content); i += 2 {
			key := node.Content[i]
			f, ok := fields[key.Value]
			if !ok {
				errs = append(errs, unknown(fmt.Sprintf("%s:%d", path, key.Line), key.Value, nearest(key.Value, names)))
				continue
			}
			errs = append(errs, knownKeys(path, node.Content[i+1], f))
		}
	}
	return errors.Join(errs...)
}

var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

func fieldsByKey(t reflect.Type) (fields map[string]reflect.Type, names []string) {
	fields = map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if strings.Contains(options, "inline") {
			inner, more := fieldsByKey(f.Type)
			for k, v := range inner {
				fields[k] = v
			}
			names = append(names, more...)
			continue
		}
		if name != "" && name != "-" {
			fields[name] = f.Type
			names = append(names, name)
		}
	}
	return fields, names
}

// Duration is a time.Duration as a section says it: "30s", "5m".
type Duration time.Duration

// UnmarshalYAML is part of yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return fmt.Errorf("line %d: %q: want a duration such as 30s or 5m", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// MarshalYAML is part of yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// Size is a number of bytes as a section says it: "64KiB", "1MiB".
type Size int64

// UnmarshalYAML is part of yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	v, err := parseSize(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q: %w", n.Line, n.Value, err)
	}
	*s = Size(v)
	return nil
}

// MarshalYAML is part of yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return formatSize(int64(s)), nil }
