package stage

import (
	"bytes"
	"strings"
	"sync"
)

// tailBytes bounds what is kept of a process's output.
const tailBytes = 64 << 10

// Tail keeps the end of what is written to it. The zero value is empty and ready; its methods may be called from
// several goroutines.
type Tail struct {
	mu   sync.Mutex // guards kept
	kept []byte
}

// Write keeps p and forgets what is too old. It never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if excess := len(t.kept) - tailBytes; excess > 0 {
		t.kept = append(t.kept[:0], t.kept[excess:]...)
	}
	return len(p), nil
}

// Lines returns up to n of the last lines that are not empty, oldest first, without any that holds an invite: those
// are secrets.
func (t *Tail) Lines(n int) []string {
	t.mu.Lock()
	text := string(bytes.Clone(t.kept))
	t.mu.Unlock()
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n \t")
		if line != "" && !strings.Contains(line, "aether://") && !drawn(line) {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// drawn tells lines of a QR code, which is an invite too, and escape sequences, which a log must not send to a
// terminal.
func drawn(line string) bool { return strings.ContainsAny(line, "\x1b█▀▄") }
