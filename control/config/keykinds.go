package config

import (
	"fmt"
	"strconv"
	"strings"
)

// textKey completes the entry of a key that holds one text.
func textKey[T ~string](k keySpec, field func(*Config) *T, check func(*Config) []fault) keySpec {
	k.kind = kindText
	k.check = check
	k.render = func(c *Config) string { return quote(string(*field(c))) }
	k.assign = func(c *Config, v any) []fault {
		text, ok := v.(string)
		if !ok {
			return []fault{k.wrongType(v)}
		}
		*field(c) = T(text)
		return nil
	}
	return k
}

// numberKey completes the entry of a key that holds an integer.
func numberKey(k keySpec, field func(*Config) *int, check func(*Config) []fault) keySpec {
	k.kind = kindNumber
	k.check = check
	k.render = func(c *Config) string { return strconv.Itoa(*field(c)) }
	k.assign = func(c *Config, v any) []fault {
		n, ok := v.(int64)
		if !ok {
			return []fault{k.wrongType(v)}
		}
		// Saturation keeps an absurd number absurd on 32-bit platforms, so that the range check names it.
		*field(c) = int(max(min(n, 1<<31-1), -1<<31))
		return nil
	}
	return k
}

// listKey completes the entry of a key that holds a list; one text stands for a list of one.
func listKey[T fmt.Stringer](k keySpec, field func(*Config) *[]T, parse func(string) (T, *fault),
	check func(*Config) []fault,
) keySpec {
	k.kind = kindList
	k.check = check
	k.render = func(c *Config) string {
		texts := make([]string, len(*field(c)))
		for i, v := range *field(c) {
			texts[i] = quote(v.String())
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	k.assign = func(c *Config, v any) []fault {
		texts, faults := k.texts(v)
		var list []T
		for i, text := range texts {
			value, f := parse(text)
			if f != nil {
				f.key, f.element = k.name, i
				faults = append(faults, *f)
				continue
			}
			list = append(list, value)
		}
		// A list with holes would shift the places of its members, so checks must not see it.
		if len(faults) == 0 {
			*field(c) = list
		}
		return faults
	}
	return k
}

// texts takes a list apart; members that are no text are reported.
func (k keySpec) texts(v any) ([]string, []fault) {
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case []any:
		if len(v) > maxListElements {
			return nil, []fault{{
				key: k.name, element: -1,
				message: fmt.Sprintf("has %d members, more than the %d allowed", len(v), maxListElements),
				remedy:  "shorten the list",
			}}
		}
		var faults []fault
		texts := make([]string, 0, len(v))
		for i, member := range v {
			text, ok := member.(string)
			if !ok {
				f := k.wrongType(member)
				f.element = i
				f.message = "has a member that is " + typeName(member) + ", not text"
				faults = append(faults, f)
				continue
			}
			texts = append(texts, text)
		}
		if len(faults) > 0 {
			return nil, faults
		}
		return texts, nil
	}
	return nil, []fault{k.wrongType(v)}
}

// wrongType says what was found, what is wanted, and how to write it.
func (k keySpec) wrongType(found any) fault {
	want := [...]string{"text", "a whole number", "a list of texts"}[k.kind]
	remedy := fmt.Sprintf("write for example %s = %s", k.leaf(), k.sample)
	if text, ok := found.(string); ok && k.kind == kindNumber {
		if _, err := strconv.Atoi(text); err == nil {
			remedy = fmt.Sprintf("write %s = %s without quotes", k.leaf(), text)
		}
	}
	return fault{
		key: k.name, element: -1,
		message: fmt.Sprintf("is %s where %s is wanted", typeName(found), want),
		remedy:  remedy,
	}
}

// typeName describes a decoded TOML value in words.
func typeName(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a section"
	case []map[string]any:
		return "a list of sections"
	}
	return "a date or time"
}

// quote writes a TOML basic string. Values in this package are checked texts, so that escapes stay rare.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// oneOf checks a text against its allowed values.
func oneOf[T ~string](get func(*Config) T, allowed ...T) func(*Config) []fault {
	return func(c *Config) []fault {
		value := get(c)
		words := make([]string, len(allowed))
		for i, a := range allowed {
			if a == value {
				return nil
			}
			words[i] = string(a)
		}
		remedy := "use one of " + strings.Join(words, ", ")
		if near, ok := nearest(string(value), words); ok {
			remedy = fmt.Sprintf("did you mean %q? (one of %s)", near, strings.Join(words, ", "))
		}
		return whole(fmt.Sprintf("%q is not known", shorten(string(value))), remedy)
	}
}

// shorten bounds how much of a wrong value a message repeats.
func shorten(s string) string {
	const longest = 80
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "…"
}
