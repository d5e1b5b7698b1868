package config

import (
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// WriteYAML prints the effective configuration as a file that Load reads, with
// the origin of each value as a comment.
func (c *Config) WriteYAML(w io.Writer) error {
	doc := yaml.Node{Kind: yaml.MappingNode}
	for _, k := range keys {
		value := k.format(c)
		node := yaml.Node{Kind: yaml.ScalarNode, Value: value, LineComment: c.Origin(k.name)}
		if value == "" {
			node.Style = yaml.DoubleQuotedStyle
		}
		doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: k.name}, &node)
	}
	for _, s := range sections {
		node := &yaml.Node{}
		if err := node.Encode(s.field(c)); err != nil {
			return fmt.Errorf("print configuration: %s: %w", s.name, err)
		}
		doc.Content = append(doc.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: s.name}, node)
	}
	out, err := yaml.Marshal(&doc)
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	_, err = w.Write(out)
	return err
}

// Values is the effective configuration by key, in the form that a user would
// write.
func (c *Config) Values() map[string]string {
	m := make(map[string]string, len(keys))
	for _, k := range keys {
		m[k.name] = k.format(c)
	}
	return m
}
