package bench

import (
	"strings"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	now := time.Unix(0, 0)
	play := func(terminal bool) string {
		var b strings.Builder
		p := NewProgress(&b, terminal, func() time.Time { return now })
		p.start(100 * time.Second)
		p.pass(1, 2, "aetherd")
		p.step("first", 50*time.Second)
		now = now.Add(100 * time.Second) // twice as long as expected
		p.step("second", 50*time.Second)
		p.end()
		return b.String()
	}
	want := "\r\x1b[K    0 %  pass 1 of 2, aetherd: first, 1 min 40 s left" +
		"\r\x1b[K   50 %  pass 1 of 2, aetherd: second, 1 min 40 s left\r\x1b[K"
	if got := play(true); got != want {
		t.Errorf("on a terminal\n%q, want\n%q", got, want)
	}
	want = "bench: about 1 min 40 s\nbench: pass 1 of 2, aetherd\n"
	if got := play(false); got != want {
		t.Errorf("elsewhere\n%q, want\n%q", got, want)
	}
}
