package bench

import (
	"errors"
	"math"
	"testing"
)

func TestCleanRate(t *testing.T) {
	for _, tt := range []struct {
		name             string
		limit            float64 // of the path
		sender           float64 // limit of the sender
		flaky            int     // every so many attempts fail for no reason; 0 is never
		stalls           int     // every so many attempts the sender sends half; 0 is never
		atLeast, atMost  float64
		attemptsAtMostly int
	}{
		{"a usual path", 130e3, math.Inf(1), 0, 0, 124e3, 130e3, 20},
		{"a slow path", 1500, math.Inf(1), 0, 0, 1430, 1500, 20},
		{"exactly the first rate", firstRate, math.Inf(1), 0, 0, firstRate, firstRate, 20},
		{"nothing is clean", 10, math.Inf(1), 0, 0, 0, 0, 20},
		{"a slow sender", math.Inf(1), 300e3, 0, 0, 300e3, 300e3, 20},
		{"no limit at all", math.Inf(1), math.Inf(1), 0, 0, highestRate / 2, highestRate, 12},
		{"bursts of loss", 130e3, math.Inf(1), 3, 0, 124e3, 130e3, 25},
		{"a sender that is off the processor at times", 130e3, math.Inf(1), 0, 3, 124e3, 130e3, 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attempts := 0
			got, err := cleanRate(fineSteps, func(rate float64) (attempt, error) {
				attempts++
				sent := min(rate, tt.sender)
				if tt.stalls > 0 && attempts%tt.stalls == 0 {
					sent /= 2
				}
				bad := tt.flaky > 0 && attempts%tt.flaky == 0
				return attempt{sent: sent, clean: sent <= tt.limit && !bad}, nil
			})
			if err != nil || got < tt.atLeast || got > tt.atMost {
				t.Errorf("got %.0f, %v, want %.0f to %.0f", got, err, tt.atLeast, tt.atMost)
			}
			if attempts > tt.attemptsAtMostly {
				t.Errorf("took %d attempts, want at most %d", attempts, tt.attemptsAtMostly)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := cleanRate(fineSteps, func(float64) (attempt, error) { return attempt{}, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the attempt", err)
	}
}
