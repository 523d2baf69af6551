package admit

import (
	"strconv"
	"strings"

	"github.com/aethertunnel/aethertunnel/control/store"
)

const maxName = 63 // a DNS label (RFC 1035 section 2.3.4)

// SanitizeName makes a DNS label of whatever a stranger calls itself: letters become lower case, everything
// but ASCII letters and digits becomes a hyphen, runs of hyphens one, and the result has at most 63
// characters. If nothing is left it returns fallback.
func SanitizeName(name, fallback string) string {
	var label strings.Builder
	for i := range len(name) {
		if label.Len() == maxName {
			break
		}
		c := name[i]
		switch {
		case c >= 'A' && c <= 'Z':
			label.WriteByte(c - 'A' + 'a')
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			label.WriteByte(c)
		case label.Len() > 0 && !strings.HasSuffix(label.String(), "-"):
			label.WriteByte('-')
		}
	}
	if clean := strings.TrimRight(label.String(), "-"); clean != "" {
		return clean
	}
	return fallback
}

// uniqueName returns name, or name-2, name-3 and so on, shortened to fit: the first that no node has.
func uniqueName(tx *store.Tx, name string) string {
	candidate := name
	for i := 2; tx.HasName(candidate); i++ {
		suffix := "-" + strconv.Itoa(i)
		candidate = strings.TrimRight(name[:min(len(name), maxName-len(suffix))], "-") + suffix
	}
	return candidate
}
