package tidy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/control/config"
)

var update = flag.Bool("update", false, "rewrite generated documents")

// configuration is docs/configuration.md, made from the keys themselves.
func configuration() string {
	const text = `# Configuration

Everything has a default; a file is never needed. 'aetherd up' reads '%s' if it is there, or
the one named with '--config'. A flag on the command line overrides the key. 'aetherd config check FILE' says
everything that is wrong with a file, by line and key; a wrong file is refused as a whole, before anything is changed.

`
	introduction := strings.ReplaceAll(fmt.Sprintf(text, config.DefaultPath()), "'", "`")
	return introduction + config.Table() + "\n## An example with every key\n\n```toml\n" + config.Example() + "```\n"
}

// TestConfigurationDocument keeps docs/configuration.md equal to the code; run with -update to rewrite it.
func TestConfigurationDocument(t *testing.T) {
	path := filepath.Join("..", "..", "..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, []byte(configuration()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != configuration() {
		t.Errorf("%s is out of date: go test ./cmd/internal/tidy -run Document -update", path)
	}
}

// TestDocumentLinks finds links between documents that lead nowhere.
func TestDocumentLinks(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	documents = append(documents, filepath.Join(root, "README.md"))
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(text), "](")[1:] {
			target, _, _ := strings.Cut(part, ")")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "#") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), target)); err != nil {
				t.Errorf("%s links to %s, which is not there", document, target)
			}
		}
	}
}
