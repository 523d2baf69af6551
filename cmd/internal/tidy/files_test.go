package tidy

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// maxFileLines is where a file usually holds two things.
const maxFileLines = 600

// TestFilesAreShort and free of promises nobody keeps.
func TestFiles(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		return checkFile(t, path)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkFile(t *testing.T, path string) error {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	n := 0
	for lines.Scan() {
		n++
		for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:"} {
			if strings.Contains(lines.Text(), word) {
				t.Errorf("%s:%d: %s", path, n, word)
			}
		}
	}
	if n > maxFileLines && !strings.HasSuffix(path, "_test.go") {
		t.Errorf("%s has %d lines: it is probably two things", path, n)
	}
	return lines.Err()
}
