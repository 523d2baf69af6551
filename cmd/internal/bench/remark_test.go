package bench

import (
	"strings"
	"testing"
)

func TestGeneratorRemarks(t *testing.T) {
	measures := Measures(Rows())
	contenders := func(bare, ours, theirs float64) []Contender {
		var all []Contender
		for _, rate := range []float64{bare, ours, theirs} {
			all = append(all, Contender{Results: Summarise(measures, []Sample{{KeySmall: rate}})})
		}
		return all
	}
	for _, tt := range []struct {
		bare, ours, theirs float64
		want               string
		enough             bool
	}{
		{400e3, 100e3, 50e3, "400 kpps on the bare link, 4.00 times the fastest tunnel.", true},
		{150e3, 50e3, 100e3, "150 kpps on the bare link, 1.50 times", false},
		{200e3, 100e3, 50e3, "2.00 times", true},
	} {
		got := generatorRemarks(measures, contenders(tt.bare, tt.ours, tt.theirs))
		if len(got) != 1 || !strings.Contains(got[0], tt.want) || !strings.HasPrefix(got[0], "64 B UDP") {
			t.Errorf("%+v: got %q", tt, got)
			continue
		}
		if warned := strings.Contains(got[0], "limit"); warned == tt.enough {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
	if got := generatorRemarks(measures, contenders(0, 0, 0)); len(got) != 0 {
		t.Errorf("nothing was measured, and yet: %q", got)
	}
}

func TestLoadedRemarks(t *testing.T) {
	got := loadedRemarks([]Ratio{
		{Key: KeyLoadedP99, Of: "aetherd", To: "bare link", Difference: 0.00123},
		{Key: KeyLoadedP99, Of: "aetherd", To: "wireguard-go", Difference: -1},
		{Key: KeyLoadedP50, Of: "aetherd", To: "bare link", Difference: 1},
	}, "bare link")
	if len(got) != 1 || got[0] != "RTT beside TCP, p99: aetherd has +1.23 ms over the bare link." {
		t.Errorf("got %q", got)
	}
}
