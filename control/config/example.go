package config

import (
	"fmt"
	"strings"
)

// Example renders a configuration file in which every key stands with its documentation and its default, all
// commented out: it changes nothing as it is, and a key takes effect when its "#" is removed.
func Example() string {
	var b strings.Builder
	b.WriteString("# Configuration of aetherd (TOML). Every key is optional, the values shown are defaults.\n" +
		"# To change one, remove the \"#\" before it. A flag on the command line overrides the file.\n" +
		"# `aetherd config check FILE` reads a file and names every mistake, changing nothing.\n")
	defaults, section := Default(), ""
	for _, k := range keyTable() {
		if k.section() != section {
			section = k.section()
			fmt.Fprintf(&b, "\n# %s\n[%s]\n", sectionDoc(section), section)
		}
		fmt.Fprintf(&b, "\n# %s.\n", upperFirst(k.doc))
		if rendered := k.render(&defaults); rendered != k.sample {
			fmt.Fprintf(&b, "# Example: %s = %s\n", k.leaf(), k.sample)
		}
		if k.flag != "" {
			fmt.Fprintf(&b, "# Flag: --%s\n", k.flag)
		}
		fmt.Fprintf(&b, "#%s = %s\n", k.leaf(), k.render(&defaults))
	}
	return b.String()
}

// Table renders the keys as a Markdown table for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| key | type | default | flag | meaning |\n|---|---|---|---|---|\n")
	for _, k := range Keys() {
		flag := ""
		if k.Flag != "" {
			flag = "`--" + k.Flag + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", k.Name, k.Type, k.Default, flag, k.Doc)
	}
	return b.String()
}

func sectionDoc(section string) string {
	switch section {
	case "node":
		return "This machine."
	case "gateway":
		return "Only for a gateway: where it listens and which network it makes."
	case "routes":
		return "Networks behind this node."
	case "tls":
		return "What a handshake may agree on."
	case "log":
		return "What is logged and how."
	}
	return "Section " + section + "."
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
