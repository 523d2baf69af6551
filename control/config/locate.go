package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

const (
	// maxNesting bounds brackets within brackets: the library's parser recurses, and a file of a million
	// brackets would exhaust its stack.
	maxNesting = 16
	// maxKeyDots bounds the parts of a dotted key, for which the library's work and memory grow quadratically.
	maxKeyDots = 16
	// maxUnknown bounds how many unknown keys are looked into, as finding the place of one costs a pass over the
	// file.
	maxUnknown = 2 * maxProblems
)

// locator is a decoding target that takes any value and then fails on purpose: the library reveals the place
// of a value only inside an error.
type locator struct{ value any }

var errLocated = errors.New("located")

// UnmarshalTOML implements toml.Unmarshaler.
func (l *locator) UnmarshalTOML(v any) error {
	l.value = v
	return errLocated
}

// locate gives a decoded value and its place.
func (d *decoder) locate(path []string, primitive toml.Primitive) (any, place) {
	var l locator
	err := d.meta.PrimitiveDecode(primitive, &l)
	var parseError toml.ParseError
	if !errors.As(err, &parseError) {
		return l.value, place{}
	}
	at := place{parseError.Position.Line, parseError.Position.Col}
	if at.line > 0 {
		return l.value, beginning(d.text, at, l.value)
	}
	// The table was never opened by a header but through a dotted key; the first key inside it stands for it.
	if names, children := d.children(path, primitive); len(names) > 0 {
		_, at = d.locate(append(slices.Clone(path), names[0]), children[names[0]])
	}
	return l.value, at
}

// children takes a table apart and gives its keys in the order of the file; none when it is no table.
func (d *decoder) children(path []string, primitive toml.Primitive) ([]string, map[string]toml.Primitive) {
	var l locator
	var keys map[string]toml.Primitive
	if err := d.meta.PrimitiveDecode(primitive, &l); !errors.As(err, new(toml.ParseError)) {
		return nil, nil
	}
	if _, ok := l.value.(map[string]any); !ok || d.meta.PrimitiveDecode(primitive, &keys) != nil {
		return nil, nil
	}
	return d.inOrder(path, keys), keys
}

// inOrder gives the keys right below path in the order in which the file first names them.
func (d *decoder) inOrder(path []string, keys map[string]toml.Primitive) []string {
	names := make([]string, 0, len(keys))
	seen := make(map[string]bool, len(keys))
	for _, key := range d.meta.Keys() {
		if len(key) <= len(path) || !slices.Equal(key[:len(path)], path) {
			continue
		}
		name := key[len(path)]
		if _, ok := keys[name]; ok && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// beginning moves a place from behind the opening quotes or bracket, where the library sees a value, to the
// value's first byte.
func beginning(text string, at place, value any) place {
	openers, longest := "", 0
	switch value.(type) {
	case string:
		openers, longest = `"'`, 3
	case []any:
		openers, longest = "[", 1
	}
	offset := offsetOf(text, at)
	for ; longest > 0 && at.column > 1 && offset > 0 && offset <= len(text); longest-- {
		if !strings.ContainsRune(openers, rune(text[offset-1])) {
			break
		}
		offset, at.column = offset-1, at.column-1
	}
	return at
}

// guard refuses, before the library sees it, a file whose shape would cost it unbounded stack or memory.
func guard(file, text string) *Problem {
	depth, dots, line, lineStart := 0, 0, 1, 0
	for i := 0; i < len(text); {
		next := skipToken(text, i)
		switch text[i] {
		case '[', '{':
			depth, dots = depth+1, 0
		case ']', '}':
			depth, dots = max(depth-1, 0), 0
		case ',', '=', '\n':
			dots = 0
		case '.':
			dots++
		}
		if depth > maxNesting || dots > maxKeyDots {
			return &Problem{
				File: file, Line: line, Column: i - lineStart + 1, Message: "is nested too deeply",
				Remedy: fmt.Sprintf("use at most %d brackets or dots within each other", maxNesting),
			}
		}
		if n := strings.Count(text[i:next], "\n"); n > 0 {
			line += n
			lineStart = i + strings.LastIndexByte(text[i:next], '\n') + 1
		}
		i = next
	}
	return nil
}

// skipToken gives the end of the comment, string or single byte that begins at i.
func skipToken(text string, i int) int {
	rest := text[i:]
	switch {
	case rest[0] == '#':
		if end := strings.IndexByte(rest, '\n'); end >= 0 {
			return i + end
		}
		return len(text)
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, "'''"):
		return i + 3 + endOfString(rest[3:], rest[:3], rest[0] == '"')
	case rest[0] == '"', rest[0] == '\'':
		return i + 1 + endOfString(rest[1:], rest[:1], rest[0] == '"')
	}
	return i + 1
}

// endOfString gives how many bytes of s belong to a string that ends with the quote, the quote included. A
// single-line string ends at the end of the line at the latest.
func endOfString(s, quote string, escapes bool) int {
	for i := 0; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case len(quote) == 1 && s[i] == '\n':
			return i
		case strings.HasPrefix(s[i:], quote):
			// Up to two more quotes belong to the content of a multi-line string that ends with them.
			end := i + len(quote)
			for n := 0; len(quote) == 3 && n < 2 && end < len(s) && s[end] == quote[0]; n++ {
				end++
			}
			return end
		}
	}
	return len(s)
}

// elementPlaces gives the places of the n members of the list that begins at a place. When the text does not
// read as that many members the result is shorter, and the list's own place stands for the rest.
func elementPlaces(text string, at place, n int) []place {
	offset := offsetOf(text, at)
	if offset < 0 || offset >= len(text) || text[offset] != '[' {
		return nil
	}
	places := make([]place, 0, min(n, maxListElements))
	depth, expecting := 0, true
	line, lineStart := at.line, offset-(at.column-1)
	for i := offset; i < len(text) && len(places) < cap(places); {
		next := skipToken(text, i)
		switch c := text[i]; c {
		case '[', '{':
			if depth++; depth == 2 && expecting {
				places, expecting = append(places, place{line, i - lineStart + 1}), false
			}
		case ']', '}':
			if depth--; depth == 0 {
				return places
			}
		case ',':
			expecting = expecting || depth == 1
		case ' ', '\t', '\r', '\n', '#':
		default:
			if depth == 1 && expecting {
				places, expecting = append(places, place{line, i - lineStart + 1}), false
			}
		}
		if count := strings.Count(text[i:next], "\n"); count > 0 {
			line += count
			lineStart = i + strings.LastIndexByte(text[i:next], '\n') + 1
		}
		i = next
	}
	return places
}

// offsetOf gives the byte offset of a place, or -1.
func offsetOf(text string, at place) int {
	offset := 0
	for line := 1; line < at.line; line++ {
		end := strings.IndexByte(text[offset:], '\n')
		if end < 0 {
			return -1
		}
		offset += end + 1
	}
	return offset + at.column - 1
}
