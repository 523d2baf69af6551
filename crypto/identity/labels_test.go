package identity

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestLabelsAreApart(t *testing.T) {
	t.Parallel()
	labels := Labels()
	for i, a := range labels {
		if len(a) == 0 || len(a) > 255 {
			t.Errorf("%q does not fit into a byte of length", a)
		}
		for j, b := range labels {
			if i != j && strings.HasPrefix(string(a), string(b)) {
				t.Errorf("%q begins with %q", a, b)
			}
		}
	}
}

// Every constant of type Label in the source is in the table.
func TestLabelsAreComplete(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "labels.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Label" {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil || !slices.Contains(Labels(), Label(value)) {
			t.Errorf("%s is not in the table", spec.Names[0])
		}
		found++
		return true
	})
	if found != len(Labels()) {
		t.Errorf("%d constants, %d labels in the table", found, len(Labels()))
	}
}

func TestSumSeparatesParts(t *testing.T) {
	t.Parallel()
	sums := [][32]byte{
		LabelJoin.Sum(), LabelJoin.Sum(nil), LabelJoin.Sum([]byte("ab")), LabelJoin.Sum([]byte("a"), []byte("b")),
		LabelJoin.Sum([]byte("ab"), nil), LabelNodeID.Sum([]byte("ab")),
	}
	for i, sum := range sums {
		if slices.Contains(sums[:i], sum) {
			t.Errorf("sum %d is one of the earlier", i)
		}
	}
}
