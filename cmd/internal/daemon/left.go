package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

const (
	// leftFile holds what a daemon could not take back when it ended, one line each. The person to tell is the one who
	// types `aetherd down`, and by then nobody answers on the socket any more.
	leftFile = "left"
	// maxLeftBytes bounds what is read of it.
	maxLeftBytes = 1 << 20
)

// keepLeft writes the list into the state directory, unless it is empty.
func keepLeft(dir string, left []journal.Left) error {
	if len(left) == 0 {
		return nil
	}
	var b strings.Builder
	for _, l := range left {
		fmt.Fprintln(&b, l)
	}
	return os.WriteFile(filepath.Join(dir, leftFile), []byte(b.String()), 0o600)
}

// takeLeft returns the lines that are there and removes them.
func takeLeft(dir string) ([]string, error) {
	path := filepath.Join(dir, leftFile)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLeftBytes))
	if err := errors.Join(err, f.Close(), os.Remove(path)); err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' }), nil
}
