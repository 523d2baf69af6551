package config

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzParse feeds files of any content: no crash, no problem without words, and what is accepted is accepted
// again when its values are written out.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.toml", "testdata/bad/*.toml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(Example()))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			problems := Problems(err)
			if len(problems) == 0 || len(problems) > maxProblems {
				t.Fatalf("%d problems for %v", len(problems), err)
			}
			for _, p := range problems {
				if p.Message == "" || p.Remedy == "" || p.File != "f" || p.Line < 0 || p.Column < 0 {
					t.Fatalf("incomplete problem %+v", p)
				}
			}
			return
		}
		again, err := Parse("f", []byte(rendered(c)))
		if err != nil || !again.Equal(c) {
			t.Fatalf("written out it reads differently: %v\n%s\n%+v\n%+v", err, rendered(c), c, again)
		}
	})
}

func rendered(c Config) string {
	text := ""
	for _, k := range keyTable() {
		text += k.name + " = " + k.render(&c) + "\n"
	}
	return text
}
