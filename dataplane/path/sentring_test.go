package path

import "testing"

// TestSentRingGrows: a ring that grows as it is used answers as one that has had room for all samples from the start.
func TestSentRingGrows(t *testing.T) {
	var growing sentRing
	full := sentRing{samples: make([]sample, sentSamples)}
	for i := range uint64(3 * sentSamples) {
		nanos := int64(i) * millisecond // too far apart to be merged
		for _, r := range []*sentRing{&growing, &full} {
			r.add(3*i, 2, 2000, int(i%3), nanos) // every third number is skipped
		}
		if room := len(growing.samples); i < firstSentSamples && room != firstSentSamples || room > sentSamples {
			t.Fatalf("room for %d samples after %d", room, i+1)
		}
		for number := range 3*i + 3 {
			got, ok := growing.upTo(number)
			want, wantOK := full.upTo(number)
			if got != want || ok != wantOK {
				t.Fatalf("up to %d of %d: %+v, %v, want %+v, %v", number, 3*i+2, got, ok, want, wantOK)
			}
		}
	}
}
