package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Flags is the overlay of the command line: the flags that were given, with their texts. The zero value is an
// overlay of none. Values are not judged when set; [Resolve] reports all wrong ones at once, each by its
// flag.
type Flags struct {
	given map[string][]string
}

// Set records the value of the flag called name (without dashes). A flag of a list key takes a
// comma-separated list and adds to what was given before; any other flag replaces it. The error says that no
// such flag exists.
func (f *Flags) Set(name, text string) error {
	k, ok := flagKey(name)
	if !ok {
		return fmt.Errorf("no configuration key has the flag --%s", name)
	}
	if f.given == nil {
		f.given = make(map[string][]string)
	}
	if k.kind != kindList {
		f.given[name] = []string{text}
		return nil
	}
	for member := range strings.SplitSeq(text, ",") {
		f.given[name] = append(f.given[name], strings.TrimSpace(member))
	}
	return nil
}

// Args gives the flags back as arguments that mean the same to another start of the program.
func (f Flags) Args() []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(f.given)) {
		args = append(args, "--"+name+"="+strings.Join(f.given[name], ","))
	}
	return args
}

// IsSet reports whether the flag was given.
func (f Flags) IsSet(name string) bool { return len(f.given[name]) > 0 }

// Value gives the flag called name in the form the cobra and pflag packages register; nil when no key has
// that flag. The names and their help come from [Keys].
func (f *Flags) Value(name string) *FlagValue {
	if _, ok := flagKey(name); !ok {
		return nil
	}
	return &FlagValue{flags: f, name: name}
}

// FlagValue is one flag of a [Flags] overlay; it has the methods of pflag.Value.
type FlagValue struct {
	flags *Flags
	name  string
}

// String gives the text given so far; empty when the flag is not set.
func (v *FlagValue) String() string {
	if v.flags == nil {
		return ""
	}
	return strings.Join(v.flags.given[v.name], ",")
}

// Set records the text of one occurrence of the flag.
func (v *FlagValue) Set(text string) error { return v.flags.Set(v.name, text) }

// Type names the kind of value for the help text.
func (v *FlagValue) Type() string {
	if k, ok := flagKey(v.name); ok {
		return k.kind.String()
	}
	return kindText.String()
}

func flagKey(name string) (keySpec, bool) {
	table := keyTable()
	i := slices.IndexFunc(table, func(k keySpec) bool { return k.flag == name })
	if i < 0 || name == "" {
		return keySpec{}, false
	}
	return table[i], true
}

// overlay gives c with the flags laid over it and what cannot be converted.
func (f Flags) overlay(c Config) (Config, []Problem) {
	c = c.clone()
	var problems []Problem
	for _, k := range keyTable() {
		texts, ok := f.given[k.flag]
		if k.flag == "" || !ok {
			continue
		}
		with := c.withSource(k.name, Source{Flag: "--" + k.flag})
		value, faults := flagValue(k, texts)
		if len(faults) == 0 {
			faults = k.assign(&with, value)
		}
		for _, fault := range faults {
			problems = append(problems, with.locate(fault))
		}
		// A flag that failed must not lend its name to the value it did not replace.
		if len(faults) == 0 {
			c = with
		}
	}
	return c, problems
}

// flagValue brings the texts of a flag into the form the file would have.
func flagValue(k keySpec, texts []string) (any, []fault) {
	switch k.kind {
	case kindList:
		list := make([]any, 0, len(texts))
		for _, text := range texts {
			if text != "" {
				list = append(list, text)
			}
		}
		return list, nil
	case kindNumber:
		n, err := strconv.ParseInt(texts[0], 10, 64)
		if err != nil {
			return nil, []fault{{
				key: k.name, element: -1, message: fmt.Sprintf("%q is not a whole number", shorten(texts[0])),
				remedy: fmt.Sprintf("write for example --%s %s", k.flag, k.sample),
			}}
		}
		return n, nil
	case kindText:
	}
	if k.name != "node.state" || texts[0] == "" {
		return texts[0], nil
	}
	// Only on the command line is there a directory that a relative path can be relative to.
	dir, err := filepath.Abs(texts[0])
	if err != nil {
		return nil, []fault{{
			key: k.name, element: -1, message: fmt.Sprintf("cannot be made absolute: %v", err),
			remedy: "give the whole path",
		}}
	}
	return dir, nil
}
