// Package impair decides what a bad link does to each frame: when it arrives, how often, or why it does
// not. A [Line] is one direction of such a link. It has no clock, no goroutine and no device: the
// caller says what time it is, offers frames and takes those that are due. Equal seeds and equal
// sequences of frames give equal decisions, at any speed.
//
// The line is a model of a bottleneck and the path behind it, in this order:
//
//	Offer ─► block, MTU ─► FIFO of QueueBytes ─► transmitter at BitsPerSecond ─┐
//	  ┌────────────────────────────────────────────────────────────────────────┘
//	  └► loss ─► delay, jitter, reorder, duplicate ─► Take
//
// A frame that the path loses has used the bottleneck, as on a radio link; one that finds the FIFO full
// has not. What a frame meets by chance is drawn when it is offered, from its number and the seed, so
// neither timing nor other settings change it.
package impair
