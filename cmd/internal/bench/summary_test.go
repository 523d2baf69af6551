package bench

import (
	"slices"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		samples []float64
		want    float64
	}{
		{[]float64{7}, 7},
		{[]float64{3, 1}, 2},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := slices.Clone(tt.samples)
		if got := median(tt.samples); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.samples, got, tt.want)
		}
		if !slices.Equal(before, tt.samples) {
			t.Errorf("median has sorted its argument: %v", tt.samples)
		}
	}
}

func TestSummarise(t *testing.T) {
	got := Summarise(Measures(Rows()), []Sample{{KeyTCPUp: 3, KeyCPU: 1}, {KeyTCPUp: 1}, {KeyTCPUp: 2}})
	up := got[KeyTCPUp]
	if up.Median != 2 || up.Min != 1 || up.Max != 3 || !slices.Equal(up.Samples, []float64{3, 1, 2}) {
		t.Errorf("got %+v", up)
	}
	if cpu := got[KeyCPU]; cpu.Median != 1 || len(cpu.Samples) != 1 {
		t.Errorf("got %+v", cpu)
	}
	if _, found := got[KeyMemory]; found || len(got) != 2 {
		t.Errorf("got %v, want two measures", got)
	}
}

func TestCompare(t *testing.T) {
	measures := Measures(Rows())
	contender := func(name string, passes ...Sample) Contender {
		return Contender{Name: name, Results: Summarise(measures, passes)}
	}
	// The second pass is on a machine half as fast; of the medians, 6 and 10, the ratio would be another.
	ours := contender("aetherd", Sample{KeyTCPUp: 8, KeySmall: 10, KeyCPU: 1}, Sample{KeyTCPUp: 4, KeySmall: 40, KeyCPU: 1},
		Sample{KeyTCPUp: 6, KeySmall: 20, KeyCPU: 1})
	theirs := contender("rival", Sample{KeyTCPUp: 16, KeySmall: 20, KeyIdleP50: 1}, Sample{KeyTCPUp: 8, KeySmall: 20},
		Sample{KeyTCPUp: 10, KeySmall: 20})
	want := []Ratio{
		{Key: KeyTCPUp, Of: "aetherd", To: "rival", Value: 0.5, Min: 0.5, Max: 0.6, Difference: -4},
		{Key: KeySmall, Of: "aetherd", To: "rival", Value: 1, Min: 0.5, Max: 2, WithinNoise: true},
	}
	sortByKey := func(a, b Ratio) int { return strings.Compare(b.Key, a.Key) }
	got := slices.SortedFunc(slices.Values(Compare(measures, ours, theirs)), sortByKey)
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	once := contender("once", Sample{KeyTCPUp: 5})
	if got := Compare(measures, once, once); len(got) != 1 || got[0].WithinNoise {
		t.Errorf("got %+v: one pass knows no noise", got)
	}
	for name, to := range map[string]Contender{
		"nothing": contender("zero", Sample{KeyTCPUp: 0}), "another number of passes": theirs,
	} {
		if got := Compare(measures, once, to); len(got) != 0 {
			t.Errorf("got %+v, want no ratio to %s", got, name)
		}
	}
}
