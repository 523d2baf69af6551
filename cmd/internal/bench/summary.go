package bench

import (
	"slices"
	"time"
)

// A Report is what a benchmark found. It is also the form of `aetherd bench --json`.
type Report struct {
	Machine    Machine     `json:"machine"`
	Began      time.Time   `json:"began"`
	Seconds    float64     `json:"seconds"` // of each measurement
	Passes     int         `json:"passes"`  // of each contender
	Measures   []Measure   `json:"measures"`
	Contenders []Contender `json:"contenders"`
	Ratios     []Ratio     `json:"ratios"`
}

// Machine says where the numbers come from.
type Machine struct {
	CPU         string  `json:"cpu"`
	Cores       int     `json:"cores"`
	MemoryBytes int64   `json:"memory_bytes"`
	Kernel      string  `json:"kernel"`
	Arch        string  `json:"arch"`
	Go          string  `json:"go"`
	LoadAverage float64 `json:"load_average"` // of the minute before
}

// A Contender is one column of the results.
type Contender struct {
	Name    string             `json:"name"`
	Version string             `json:"version,omitempty"`
	Results map[string]Summary `json:"results"` // by the keys of the measures, in their units
}

// A Summary is what the passes of one contender gave for one measure.
type Summary struct {
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"` // in the order of the passes
}

// A Ratio is what one contender's median is of another's.
type Ratio struct {
	Key   string  `json:"key"`
	Of    string  `json:"of"`
	To    string  `json:"to"`
	Value float64 `json:"value"`
	// WithinNoise means that the values of the passes overlap: another run may find it the other way round.
	WithinNoise bool `json:"within_noise"`
}

// Summarise makes a contender's results of its passes. A measure that no pass has is left out.
func Summarise(passes []Sample) map[string]Summary {
	results := make(map[string]Summary)
	for _, m := range Measures() {
		var samples []float64
		for _, p := range passes {
			if v, ok := p[m.Key]; ok {
				samples = append(samples, v)
			}
		}
		if len(samples) > 0 {
			results[m.Key] = summarise(samples)
		}
	}
	return results
}

func summarise(samples []float64) Summary {
	return Summary{
		Median: median(samples), Min: slices.Min(samples), Max: slices.Max(samples), Samples: slices.Clone(samples),
	}
}

// median of an even number of samples is the mean of the middle two.
func median(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Compare returns the ratios of one contender to another, for the measures that both have and where they can be had.
func Compare(of, to Contender) []Ratio {
	var ratios []Ratio
	for _, m := range Measures() {
		a, hasA := of.Results[m.Key]
		b, hasB := to.Results[m.Key]
		if !hasA || !hasB || b.Median == 0 {
			continue
		}
		ratios = append(ratios, Ratio{
			Key: m.Key, Of: of.Name, To: to.Name, Value: a.Median / b.Median,
			WithinNoise: len(a.Samples) > 1 && a.Min <= b.Max && b.Min <= a.Max,
		})
	}
	return ratios
}
