package demo_test

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo"
)

func sample() demo.Result {
	return demo.Result{Elapsed: 12345 * time.Millisecond, Checks: []demo.Check{
		{
			Name: "ping gateway, IPv4", Kind: demo.KindPing, Target: "100.64.0.1", OK: true, Sent: 5, Received: 5,
			RTT: demo.RTT{P50: 310 * time.Microsecond},
		},
		{Name: "ping gateway, IPv6", Kind: demo.KindPing, Target: "fd00::1", Error: "0 of 5 answered"},
		{
			Name: "web page", Kind: demo.KindPage, Target: "http://10.20.30.2:80/", OK: true, HTTPStatus: 200, PageBytes: 86,
			PageTime: 12 * time.Millisecond,
		},
		{Name: "TCP laptop → LAN host", Kind: demo.KindThroughput, Target: "10.20.30.2", OK: true, BitsPerSecond: 1.234e9},
		{Name: "TCP LAN host → laptop", Kind: demo.KindThroughput, Target: "10.20.30.2", OK: true, BitsPerSecond: 5e6},
		{
			Name: "round trip", Kind: demo.KindRTT, Target: "10.20.30.2", OK: true, BitsPerSecond: 2e9,
			RTT: demo.RTT{P50: time.Millisecond, P99: 20 * time.Millisecond, P999: 300 * time.Millisecond},
		},
	}}
}

func TestCheckText(t *testing.T) {
	want := []string{
		"5 of 5 answered, 0.31 ms",
		"FAILED: 0 of 5 answered",
		"status 200, 86 bytes in 12.0 ms",
		"1.23 Gbit/s",
		"5.0 Mbit/s",
		"p50 1.00 ms  p99 20.0 ms  p99.9 300 ms  at 2.00 Gbit/s",
	}
	for i, c := range sample().Checks {
		if got := c.Text(); got != want[i] {
			t.Errorf("%s: got %q, want %q", c.Name, got, want[i])
		}
	}
}

func TestFailures(t *testing.T) {
	got := sample().Failures()
	if len(got) != 1 || got[0] != "ping gateway, IPv6" {
		t.Errorf("got %q", got)
	}
}

// show lets a view show a result.
func show(color bool, r demo.Result) string {
	var b strings.Builder
	v := demo.View{W: &b, Color: color}
	v.Title("Title")
	v.Step("gateway", "listens on %s", ":443")
	v.Step("", "goes on")
	v.Command("aetherd up")
	table := v.Table(r.Checks)
	for _, c := range r.Checks {
		table.Begin(c)
		table.Done(c)
	}
	v.End(r)
	return b.String()
}

func TestView(t *testing.T) {
	text := show(false, sample())
	for _, want := range []string{
		"\nTitle\n", "  gateway    listens on :443\n             goes on\n             $ aetherd up\n",
		"  TCP laptop → LAN host  10.20.30.2             1.23 Gbit/s\n",
		"  ping gateway, IPv6     fd00::1                FAILED: 0 of 5 answered\n",
		"1 of 6 checks failed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(line); n > 110 {
			t.Errorf("a line has %d columns: %q", n, line)
		}
	}
	begun := regexp.MustCompile(".*…\x1b\\[0m\r\x1b\\[K")
	plain := begun.ReplaceAllString(show(true, sample()), "")
	plain = strings.NewReplacer("\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[36m", "", "\x1b[0m", "").
		Replace(plain)
	if plain != text {
		t.Errorf("colour changes more than colour:\n%s", plain)
	}
	good := demo.Result{OK: true, Checks: sample().Checks[:1]}
	if text := show(false, good); !strings.Contains(text, "All 1 checks passed") {
		t.Errorf("a success reads\n%s", text)
	}
}
