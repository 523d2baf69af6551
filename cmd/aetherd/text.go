package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// join writes a list of addresses or prefixes with spaces between.
func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, " ")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
