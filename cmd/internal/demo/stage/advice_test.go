package stage_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/cmd/internal/demo/stage"
)

func TestAdvice(t *testing.T) {
	good := stage.Facts{Tun: stage.TunUsable, MaxUserNamespaces: 100, UnprivilegedClone: true}
	tests := []struct {
		name   string
		change func(*stage.Facts)
		want   string // what to type, or "" for no advice
	}{
		{"user namespaces work", func(*stage.Facts) {}, ""},
		{"no device", func(f *stage.Facts) { f.Tun = stage.TunMissing }, "`sudo modprobe tun`"},
		{"no driver", func(f *stage.Facts) { f.Tun, f.Privileged = stage.TunNoDriver, true }, "`sudo modprobe tun`"},
		{"device of root", func(f *stage.Facts) { f.Tun = stage.TunForbidden }, "`sudo make demo`"},
		{"no such kernel feature", func(f *stage.Facts) { f.MaxUserNamespaces = -1 }, "`sudo make demo`"},
		{"limit of 0", func(f *stage.Facts) { f.MaxUserNamespaces = 0 }, "`sudo sysctl user.max_user_namespaces=15000`"},
		{"Debian", func(f *stage.Facts) { f.UnprivilegedClone = false }, "`sudo sysctl kernel.unprivileged_userns_clone=1`"},
		{
			"Ubuntu", func(f *stage.Facts) { f.AppArmorRestricts = true },
			"`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
		},
		{
			"root needs no user namespaces",
			func(f *stage.Facts) { *f = stage.Facts{Tun: stage.TunUsable, Privileged: true} }, "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			facts := good
			tt.change(&facts)
			got := facts.Advice("demo")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want it to say %s", got, tt.want)
			}
			cause := errors.New("operation not permitted")
			if err := facts.Blame("demo", cause); !errors.Is(err, cause) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("blamed as %q", err)
			}
		})
	}
}

func TestTail(t *testing.T) {
	var tail stage.Tail
	write := func(s string) {
		t.Helper()
		if n, err := tail.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if lines := tail.Lines(3); len(lines) != 0 {
		t.Errorf("an empty tail has %q", lines)
	}
	for range 10_000 {
		write("some line that is old\n")
	}
	write("\none\n\ntwo\n  sudo aetherd up 'aether://secret'\n\x1b[30;47m▄▀█\nthree\nhalf a li")
	want := []string{"one", "two", "three", "half a li"}
	if got := tail.Lines(4); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := tail.Lines(1); len(got) != 1 || got[0] != "half a li" {
		t.Errorf("got %q", got)
	}
	if got := len(tail.Lines(1 << 20)); got > 4000 {
		t.Errorf("%d lines kept, want a bounded number", got)
	}
}
