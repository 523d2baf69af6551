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
	Rows       []string    `json:"rows"`    // names of those measured
	Measures   []Measure   `json:"measures"`
	Contenders []Contender `json:"contenders"`
	Ratios     []Ratio     `json:"ratios"`
	// Remarks are what a reader should know before believing the numbers, one sentence each.
	Remarks []string `json:"remarks"`
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

// A Ratio compares two contenders: the medians, over the passes, of what each pass found.
type Ratio struct {
	Key        string  `json:"key"`
	Of         string  `json:"of"`
	To         string  `json:"to"`
	Value      float64 `json:"value"`
	Min        float64 `json:"min"`
	Max        float64 `json:"max"`
	Difference float64 `json:"difference"` // in the unit of the measure
	// WithinNoise means that some passes find the one better and some the other.
	WithinNoise bool `json:"within_noise"`
}

// Summarise makes a contender's results of its passes. A measure that no pass has is left out.
func Summarise(measures []Measure, passes []Sample) map[string]Summary {
	results := make(map[string]Summary)
	for _, m := range measures {
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

// Compare returns the ratios of one contender to another, for the measures that both have in every pass and where they
// can be had.
func Compare(measures []Measure, of, to Contender) []Ratio {
	var ratios []Ratio
	for _, m := range measures {
		a, b := of.Results[m.Key].Samples, to.Results[m.Key].Samples
		if len(a) == 0 || len(a) != len(b) || slices.Contains(b, 0) {
			continue
		}
		quotients, differences := make([]float64, len(a)), make([]float64, len(a))
		for i := range a {
			quotients[i], differences[i] = a[i]/b[i], a[i]-b[i]
		}
		q := summarise(quotients)
		ratios = append(ratios, Ratio{
			Key: m.Key, Of: of.Name, To: to.Name, Value: q.Median, Min: q.Min, Max: q.Max, Difference: median(differences),
			WithinNoise: len(a) > 1 && q.Min <= 1 && q.Max >= 1,
		})
	}
	return ratios
}
