package traffic

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// A Distribution holds every sample of a measurement, so that its quantiles are exact. The zero value
// has no samples.
type Distribution struct {
	sorted []time.Duration
}

// NewDistribution returns the distribution of samples, which stay the caller's.
func NewDistribution(samples []time.Duration) Distribution {
	return Distribution{sorted: slices.Sorted(slices.Values(samples))}
}

// Count returns the number of samples.
func (d Distribution) Count() int { return len(d.sorted) }

// Quantile returns the smallest sample that at least the part q of all samples does not exceed (nearest
// rank): 0.5 is the median, 0.999 what the worst of a thousand exceed. Below 0 counts as 0, the
// minimum, above 1 as 1, the maximum. Without samples it returns 0.
func (d Distribution) Quantile(q float64) time.Duration {
	if len(d.sorted) == 0 {
		return 0
	}
	// Without the allowance, 0.07 * 100 is 7.000000000000001 and would be rounded up to 8.
	const allowance = 1e-9
	rank := int(math.Ceil(q*float64(len(d.sorted)) - allowance))
	return d.sorted[min(max(rank, 1), len(d.sorted))-1]
}

// Min returns the smallest sample, 0 without samples.
func (d Distribution) Min() time.Duration { return d.Quantile(0) }

// Max returns the largest sample, 0 without samples.
func (d Distribution) Max() time.Duration { return d.Quantile(1) }

// Mean returns the arithmetic mean, 0 without samples.
func (d Distribution) Mean() time.Duration {
	if len(d.sorted) == 0 {
		return 0
	}
	var sum float64
	for _, s := range d.sorted {
		sum += float64(s)
	}
	return time.Duration(math.Round(sum / float64(len(d.sorted))))
}

// Samples returns all samples in rising order.
func (d Distribution) Samples() []time.Duration { return slices.Clone(d.sorted) }

// String returns the usual quantiles on one line.
func (d Distribution) String() string {
	return fmt.Sprintf("p50 %v, p99 %v, p99.9 %v, max %v, of %d",
		d.Quantile(0.5), d.Quantile(0.99), d.Quantile(0.999), d.Max(), d.Count())
}
