package traffic

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreExact(t *testing.T) {
	upTo := func(n int) []time.Duration {
		samples := make([]time.Duration, n)
		for i := range samples {
			samples[i] = time.Duration(i + 1)
		}
		rand.Shuffle(n, func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
		return samples
	}
	for _, test := range []struct {
		samples int // 1 to this
		q       float64
		want    time.Duration
	}{
		{0, 0.5, 0},
		{1, 0, 1},
		{1, 0.5, 1},
		{1, 1, 1},
		{2, 0.5, 1},
		{2, 0.51, 2},
		{3, 0.5, 2},
		{100, 0.07, 7},
		{100, 0.5, 50},
		{100, 0.99, 99},
		{100, 0.991, 100},
		{1000, 0.999, 999},
		{1001, 0.999, 1000},
		{10_000, 0.999, 9990},
		{10, -1, 1},
		{10, 2, 10},
	} {
		if got := NewDistribution(upTo(test.samples)).Quantile(test.q); got != test.want {
			t.Errorf("quantile %v of 1 to %d is %d, want %d", test.q, test.samples, got, test.want)
		}
	}
}

// Nearest rank by its definition, counted for every sample.
func TestQuantileMatchesItsDefinition(t *testing.T) {
	for range 200 {
		samples := make([]time.Duration, 1+rand.IntN(50))
		for i := range samples {
			samples[i] = time.Duration(rand.IntN(20))
		}
		percent := rand.IntN(101)
		got := NewDistribution(samples).Quantile(float64(percent) / 100)
		enough := func(limit time.Duration) bool {
			within := 0
			for _, s := range samples {
				if s <= limit {
					within++
				}
			}
			return within*100 >= percent*len(samples)
		}
		if !slices.Contains(samples, got) || !enough(got) {
			t.Fatalf("%d %% of %v: %d is not it", percent, samples, got)
		}
		for _, s := range samples {
			if s < got && enough(s) {
				t.Fatalf("%d %% of %v: got %d, but %d is smaller", percent, samples, got, s)
			}
		}
	}
}

func TestDistributionSummary(t *testing.T) {
	samples := []time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}
	d := NewDistribution(samples)
	if samples[0] != 3*time.Millisecond {
		t.Error("the caller's samples were sorted")
	}
	const ms = time.Millisecond
	if d.Count() != 3 || d.Min() != ms || d.Max() != 3*ms || d.Mean() != 2*ms {
		t.Errorf("%d samples from %v to %v, mean %v", d.Count(), d.Min(), d.Max(), d.Mean())
	}
	if got, want := d.String(), "p50 2ms, p99 3ms, p99.9 3ms, max 3ms, of 3"; got != want {
		t.Errorf("String is %q, want %q", got, want)
	}
	if !slices.Equal(d.Samples(), []time.Duration{ms, 2 * ms, 3 * ms}) {
		t.Errorf("samples %v", d.Samples())
	}
	if empty := (Distribution{}); empty.Mean() != 0 || empty.Max() != 0 || len(empty.Samples()) != 0 {
		t.Error("an empty distribution is not all zero")
	}
}
