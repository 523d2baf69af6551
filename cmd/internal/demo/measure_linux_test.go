package demo

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestMeasure(t *testing.T) {
	trials := []trial{
		{"good", KindThroughput, "a", func(_ context.Context, c *Check) error { c.BitsPerSecond = 1e9; return nil }},
		{"bad", KindPing, "b", func(context.Context, *Check) error {
			return errors.Join(errors.New("one"), errors.New("two"))
		}},
		{"endless", KindPage, "c", func(ctx context.Context, _ *Check) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}},
		{"good again", KindThroughput, "d", func(_ context.Context, c *Check) error { c.BitsPerSecond = 2e9; return nil }},
	}
	var b strings.Builder
	checks, err := measure(t.Context(), trials, time.Millisecond, View{W: &b})
	if err != nil || len(checks) != len(trials) {
		t.Fatalf("got %d checks, %v; one that fails should not end the others", len(checks), err)
	}
	var got []string
	for _, c := range checks {
		got = append(got, c.Name+": "+c.Text())
	}
	want := []string{
		"good: 1.00 Gbit/s", "bad: FAILED: one; two", "endless: FAILED: not done after 1ms", "good again: 2.00 Gbit/s",
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := strings.Count(b.String(), "FAILED"); n != 2 {
		t.Errorf("%d failures shown:\n%s", n, b.String())
	}
}

func TestMeasureEnds(t *testing.T) {
	gone := errors.New("the gateway has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	trials := []trial{
		{"last", KindPing, "a", func(ctx context.Context, _ *Check) error { cancel(gone); return ctx.Err() }},
		{"never", KindPing, "b", func(context.Context, *Check) error { t.Error("was run"); return nil }},
	}
	var b strings.Builder
	if checks, err := measure(ctx, trials, time.Minute, View{W: &b}); !errors.Is(err, gone) || len(checks) != 0 {
		t.Errorf("got %d checks, %v, want the reason for the end", len(checks), err)
	}
}
