package impair

// dice draw what chance does to each frame from its number and a seed alone. Each frame has its own
// draws, one per question, whether or not the question is asked; so settings changed on the way do not
// disturb one another.
type dice struct {
	seed  uint64
	frame uint64
	bad   bool // the Gilbert model's state
}

// fate is what chance has in store for a frame.
type fate struct {
	lost, reordered, duplicated bool
	jitter                      float64 // part of the largest jitter, 0 to 1
}

// The questions put to chance for each frame.
const (
	drawLoss = iota
	drawJitter
	drawReorder
	drawDuplicate
	drawsPerFrame
)

// next decides about the next frame.
func (d *dice) next(i Impairments) fate {
	f := fate{
		lost:       d.lose(i),
		jitter:     d.draw(drawJitter),
		reordered:  d.draw(drawReorder) < i.Reorder,
		duplicated: d.draw(drawDuplicate) < i.Duplicate,
	}
	d.frame++
	return f
}

// lose decides about loss: independent of other frames, or by the state of a Gilbert model, which loses
// all frames while bad.
func (d *dice) lose(i Impairments) bool {
	u := d.draw(drawLoss)
	if i.LossBurst <= 1 || i.Loss == 0 {
		d.bad = false
		return u < i.Loss
	}
	if d.bad {
		d.bad = u >= i.leaveBad()
	} else {
		d.bad = u < i.enterBad()
	}
	return d.bad
}

// draw returns a number in [0, 1) for a question about the current frame.
func (d *dice) draw(question uint64) float64 {
	// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), at a given
	// step.
	z := d.seed + (d.frame*drawsPerFrame+question+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11) / (1 << 53)
}
