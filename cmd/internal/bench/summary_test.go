package bench

import (
	"slices"
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
	got := Summarise([]Sample{{KeyTCPUp: 3, KeyCPU: 1}, {KeyTCPUp: 1}, {KeyTCPUp: 2}})
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
	contender := func(name string, passes ...Sample) Contender {
		return Contender{Name: name, Results: Summarise(passes)}
	}
	ours := contender("aetherd", Sample{KeyTCPUp: 4, KeySmall: 10, KeyCPU: 1}, Sample{KeyTCPUp: 6, KeySmall: 20, KeyCPU: 1})
	theirs := contender("rival", Sample{KeyTCPUp: 10, KeySmall: 15, KeyIdleP50: 1}, Sample{KeyTCPUp: 10, KeySmall: 30})
	want := []Ratio{
		{Key: KeyTCPUp, Of: "aetherd", To: "rival", Value: 0.5},
		{Key: KeySmall, Of: "aetherd", To: "rival", Value: 15.0 / 22.5, WithinNoise: true},
	}
	if got := Compare(ours, theirs); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	once := contender("once", Sample{KeyTCPUp: 5})
	if got := Compare(once, once); len(got) != 1 || got[0].WithinNoise {
		t.Errorf("got %+v: one pass knows no noise", got)
	}
	zero := contender("zero", Sample{KeyTCPUp: 0})
	if got := Compare(once, zero); len(got) != 0 {
		t.Errorf("got %+v, want no ratio to nothing", got)
	}
}
