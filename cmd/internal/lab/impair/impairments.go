package impair

import (
	"errors"
	"fmt"
	"time"
)

// Impairments say what one direction of a link does to frames. The zero value does nothing: every frame
// passes at once.
type Impairments struct {
	// Delay is the time a frame takes from the transmitter to the far end.
	Delay time.Duration
	// Jitter is the largest addition to Delay; each frame draws its own, evenly between zero and this. It
	// never reorders: a frame waits for those before it, as in a queue somewhere on the path.
	Jitter time.Duration

	// Loss is the part of frames that vanish behind the transmitter, from 0 to 1.
	Loss float64
	// LossBurst is the mean number of frames lost in a row. Up to 1 losses are independent; above they
	// follow a Gilbert model with that mean, and still the overall part of Loss.
	LossBurst float64

	// Reorder is the part of frames that are held back by ReorderDelay, so that those behind overtake
	// them.
	Reorder float64
	// ReorderDelay is the additional delay of such a frame.
	ReorderDelay time.Duration
	// Duplicate is the part of frames that arrive twice, the copy directly behind.
	Duplicate float64

	// BitsPerSecond is the rate of the transmitter, counted in bytes of IP packets without the Ethernet
	// header; 0 is no limit.
	BitsPerSecond int64
	// QueueBytes is the depth of the FIFO in front of the transmitter, in bytes of IP packets; a frame
	// that does not fit is dropped. The one being sent is not counted. 0 is as much as the rate sends in
	// 100 ms, at least 15,000.
	QueueBytes int64

	// MTU is the longest IP packet that passes, in bytes; longer ones vanish without an ICMP message. 0 is
	// no limit.
	MTU int
	// BlockUDP drops every packet of UDP, fragments of it included.
	BlockUDP bool
	// BlockAll drops every frame, those of address resolution included: the cable is cut.
	BlockAll bool
}

// Validate reports what makes no sense, naming the field.
func (i Impairments) Validate() error {
	var errs []error
	for _, p := range []struct {
		name  string
		value float64
	}{{"Loss", i.Loss}, {"Reorder", i.Reorder}, {"Duplicate", i.Duplicate}} {
		if !(p.value >= 0 && p.value <= 1) { // NaN too
			errs = append(errs, fmt.Errorf("%s is %v, want 0 to 1", p.name, p.value))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Delay", i.Delay}, {"Jitter", i.Jitter}, {"ReorderDelay", i.ReorderDelay}} {
		if d.value < 0 || d.value > maxDelay {
			errs = append(errs, fmt.Errorf("%s is %v, want 0 to %v", d.name, d.value, maxDelay))
		}
	}
	if i.Reorder > 0 && i.ReorderDelay == 0 {
		errs = append(errs, errors.New("reordering without ReorderDelay does nothing"))
	}
	if i.BitsPerSecond < 0 || i.BitsPerSecond > maxBitsPerSecond {
		errs = append(errs,
			fmt.Errorf("BitsPerSecond is %d, want 0 to %d", i.BitsPerSecond, int64(maxBitsPerSecond)))
	}
	if i.QueueBytes < 0 || i.MTU < 0 {
		errs = append(errs, errors.New("negative QueueBytes or MTU"))
	}
	if !(i.LossBurst >= 0) || i.LossBurst > 1 && i.Loss > 0 && i.enterBad() > 1 {
		errs = append(errs, fmt.Errorf("loss of %v cannot come in bursts of mean %v", i.Loss, i.LossBurst))
	}
	return errors.Join(errs...)
}

const (
	maxDelay         = time.Hour
	maxBitsPerSecond = 1e12
	minQueueBytes    = 10 * 1500
	queueTime        = 100 * time.Millisecond
)

// enterBad and leaveBad are the transition probabilities of the Gilbert model: bad lasts LossBurst
// frames on the average, and the part of frames in bad, enter/(enter+leave), is Loss.
func (i Impairments) enterBad() float64 { return i.Loss / (1 - i.Loss) * i.leaveBad() }
func (i Impairments) leaveBad() float64 { return 1 / i.LossBurst }

// queueBytes is the FIFO's depth with the default applied.
func (i Impairments) queueBytes() int64 {
	if i.QueueBytes > 0 {
		return i.QueueBytes
	}
	return max(minQueueBytes, i.BitsPerSecond/8*int64(queueTime)/int64(time.Second))
}
