package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// decoder walks one decoded file. The TOML library stops at the first value of a wrong type, so that values
// are taken one by one and converted here; only syntax errors end the walk.
type decoder struct {
	file     string
	text     string
	meta     toml.MetaData
	table    []keySpec
	config   *Config
	problems []Problem
}

// decode lays the values of a file over c and reports everything that has no place or no right form in it.
func decode(c *Config, file string, data []byte) []Problem {
	if len(data) > MaxFileBytes {
		return []Problem{{File: file, Message: readMessage(errTooLarge), Remedy: readRemedy(errTooLarge)}}
	}
	text := string(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if p := guard(file, text); p != nil {
		return []Problem{*p}
	}
	d := &decoder{file: file, text: text, table: keyTable(), config: c}
	root, err := d.parse()
	if err != nil {
		return []Problem{syntaxProblem(file, err)}
	}
	for _, section := range d.inOrder(nil, root) {
		d.section(section, root[section])
	}
	return d.problems
}

// parse turns a crash of the library on an odd file into an error, as it panics when it doubts its own lexer.
func (d *decoder) parse() (root map[string]toml.Primitive, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the parser gave up: %v", r)
		}
	}()
	d.meta, err = toml.Decode(d.text, &root)
	return root, err
}

// syntaxProblem reports the first syntax error; behind it nothing can be trusted.
func syntaxProblem(file string, err error) Problem {
	p := Problem{
		File: file, Message: "is not valid TOML: " + err.Error(),
		Remedy: "correct the file; `aetherd config check FILE` reads it without changing anything",
	}
	var parseError toml.ParseError
	if !errors.As(err, &parseError) {
		return p
	}
	p.Line, p.Column = parseError.Position.Line, parseError.Position.Col
	p.Key = shorten(printable(parseError.LastKey))
	p.Message = "is not valid TOML: " + strings.TrimSuffix(lowerFirst(printable(parseError.Message)), ".")
	switch {
	case strings.Contains(parseError.Message, "already been defined"),
		strings.Contains(parseError.Message, "already created"):
		p.Remedy = "remove one of the two"
	case strings.Contains(parseError.Message, "expected value"):
		p.Remedy = `put text in quotes: key = "text"`
	default:
		p.Remedy = fmt.Sprintf("correct the file near column %d", p.Column)
	}
	return p
}

func lowerFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 || r == utf8.RuneError {
		return s
	}
	return string(unicode.ToLower(r)) + s[n:]
}

// section decodes one top-level entry, which must be a known table.
func (d *decoder) section(name string, primitive toml.Primitive) {
	if !slices.Contains(sections(d.table), name) {
		d.unknownSection(name, primitive)
		return
	}
	value, at := d.locate([]string{name}, primitive)
	if _, ok := value.(map[string]any); !ok {
		d.report(at, name, fmt.Sprintf("is %s where a section is wanted", typeName(value)),
			fmt.Sprintf("write [%s] on a line of its own and the keys below it", name))
		return
	}
	names, keys := d.children([]string{name}, primitive)
	for _, leaf := range names {
		key := name + "." + leaf
		if spec, known := findKey(d.table, key); known {
			value, at := d.locate([]string{name, leaf}, keys[leaf])
			d.assign(spec, value, at)
			continue
		}
		d.unknownKey(name, leaf, keys[leaf])
	}
}

func (d *decoder) assign(spec keySpec, value any, at place) {
	source := Source{File: d.file, Line: at.line, Column: at.column}
	if list, ok := value.([]any); ok {
		source.elements = elementPlaces(d.text, at, len(list))
	}
	*d.config = d.config.withSource(spec.name, source)
	for _, f := range spec.assign(d.config, value) {
		d.problems = append(d.problems, d.config.locate(f))
	}
}

func (d *decoder) unknownSection(name string, primitive toml.Primitive) {
	if len(d.problems) >= maxUnknown {
		return
	}
	value, at := d.locate([]string{name}, primitive)
	remedy := "the sections are " + strings.Join(sections(d.table), ", ")
	message := "is not a known section"
	_, isTable := value.(map[string]any)
	if !isTable {
		message = "is not a known key outside a section"
	}
	if home := d.homes(name); len(home) > 0 {
		remedy = "it belongs below [" + strings.Join(home, "] or [") + "]"
	} else if near, ok := nearest(name, sections(d.table)); ok {
		remedy = fmt.Sprintf("did you mean [%s]?", near)
	} else if near, ok := d.nearestAnywhere(name); ok && !isTable {
		remedy = fmt.Sprintf("did you mean %s?", near)
	}
	d.report(at, name, message, remedy)
}

func (d *decoder) unknownKey(section, leaf string, primitive toml.Primitive) {
	if len(d.problems) >= maxUnknown {
		return
	}
	_, at := d.locate([]string{section, leaf}, primitive)
	var here []string
	for _, k := range d.table {
		if k.section() == section {
			here = append(here, k.leaf())
		}
	}
	remedy := fmt.Sprintf("the keys of [%s] are %s", section, strings.Join(here, ", "))
	if near, ok := nearest(leaf, here); ok {
		remedy = fmt.Sprintf("did you mean %q?", near)
	} else if home := d.homes(leaf); len(home) > 0 {
		remedy = "it belongs below [" + strings.Join(home, "] or [") + "]"
	} else if near, ok := d.nearestAnywhere(leaf); ok {
		remedy = fmt.Sprintf("did you mean %s?", near)
	}
	d.report(at, section+"."+leaf, "is not a known key", remedy)
}

// homes lists the sections that have a key of this name.
func (d *decoder) homes(leaf string) []string {
	var homes []string
	for _, k := range d.table {
		if k.leaf() == leaf {
			homes = append(homes, k.section())
		}
	}
	return homes
}

func (d *decoder) nearestAnywhere(leaf string) (string, bool) {
	leaves := make([]string, len(d.table))
	for i, k := range d.table {
		leaves[i] = k.leaf()
	}
	near, ok := nearest(leaf, leaves)
	if !ok {
		return "", false
	}
	return fmt.Sprintf("%q below [%s]", near, strings.Join(d.homes(near), "] or [")), true
}

func (d *decoder) report(at place, key, message, remedy string) {
	d.problems = append(d.problems, Problem{
		File: d.file, Line: at.line, Column: at.column,
		Key: shorten(printable(key)), Message: message, Remedy: remedy,
	})
}

// printable keeps a key from a file from writing control characters to a terminal.
func printable(key string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, key)
}
