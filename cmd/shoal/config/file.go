package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes: a configuration is a page; more is the wrong file.
const maxFileBytes = 1 << 20

// contents are what a file says: the text of keys, and sections as they stand.
type contents struct {
	path     string
	values   map[string]source
	sections map[string]*yaml.Node
}

// readFile reads a YAML mapping of keys to scalars or lists of scalars, and of
// sections.
func readFile(path string) (*contents, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &contents{}, nil // empty, or comments only
	case err != nil:
		return nil, fmt.Errorf("read configuration: %s: %w", path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read configuration: %s: more than one document", path)
	}
	return readMapping(path, doc.Content[0])
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("%s: larger than %d bytes; is it the right file?", path, maxFileBytes)
	}
	return data, err
}

func readMapping(path string, root *yaml.Node) (*contents, error) {
	at := func(n *yaml.Node) string { return fmt.Sprintf("%s:%d", path, n.Line) }
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return &contents{}, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: want lines of the form \"key: value\"", at(root))
	}
	in := &contents{path: path, values: map[string]source{}, sections: map[string]*yaml.Node{}}
	var errs []error
	for i := 0; i < len(root.Content); i += 2 {
		name, node := root.Content[i].Value, root.Content[i+1]
		where := at(root.Content[i]) + ": " + name
		if keyByName(name) == nil && sectionByName(name) == nil {
			errs = append(errs, unknown(at(root.Content[i]), name, nearestKey(name)))
			continue
		}
		if in.has(name) {
			errs = append(errs, fmt.Errorf("%s: given twice", where))
			continue
		}
		if sectionByName(name) != nil {
			in.sections[name] = node
			continue
		}
		value, err := scalar(node)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
			continue
		}
		in.values[name] = source{fromFile, where, value}
	}
	return in, errors.Join(errs...)
}

func (in *contents) has(name string) bool {
	_, value := in.values[name]
	_, section := in.sections[name]
	return value || section
}

// scalar is the text of a value; a list is its items joined by commas.
func scalar(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.AliasNode:
		return scalar(n.Alias)
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", errors.New("has no value; leave the line out for the default")
		}
		return n.Value, nil
	case yaml.SequenceNode:
		items := make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return "", errors.New("want a list of plain values")
			}
			items = append(items, item.Value)
		}
		return strings.Join(items, ","), nil
	}
	return "", errors.New("want a plain value or a list of them")
}
