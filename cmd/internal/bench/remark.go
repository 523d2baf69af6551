package bench

import "fmt"

// enoughHeadroom is how many times as much as the fastest tunnel a generator of packets has to pass on the bare link, or
// else it may be the generator that is measured.
const enoughHeadroom = 2

// generatorRemarks says, of each search for a clean rate, what the generator passes on the bare link, which is the first
// contender.
func generatorRemarks(measures []Measure, contenders []Contender) []string {
	var remarks []string
	for _, m := range measures {
		if m.Key != KeyLarge && m.Key != KeySmall {
			continue
		}
		fastest := 0.0
		for _, c := range contenders[1:] {
			fastest = max(fastest, c.Results[m.Key].Median)
		}
		bare := contenders[0].Results[m.Key].Median
		if fastest == 0 || bare == 0 {
			continue
		}
		text := fmt.Sprintf("%s: the generator passes %s %s on the bare link, %s times the fastest tunnel.",
			m.Name, number(bare/m.scale), m.shown, number(bare/fastest))
		if bare < enoughHeadroom*fastest {
			text += fmt.Sprintf(" Below %d it may be the limit.", enoughHeadroom)
		}
		remarks = append(remarks, text)
	}
	return remarks
}

// loadedRemarks says what each contender adds to the bare link's round trips beside TCP.
func loadedRemarks(ratios []Ratio, bare string) []string {
	var remarks []string
	for _, r := range ratios {
		if r.To == bare && r.Key == KeyLoadedP99 {
			text := fmt.Sprintf("RTT beside TCP, p99: %s has %+.2f ms over the bare link.", r.Of, r.Difference*1e3)
			remarks = append(remarks, text)
		}
	}
	return remarks
}
