// Package path knows what a lane's way through the network is like, and keeps to it:
//
//   - [Search] finds the longest packet that the way carries (RFC 8899) and notices when it does so no more;
//   - [Splitter] and [Joiner] bring packets across that are longer;
//   - [Validation] follows the other end to a new address (RFC 9000 sections 8.2 and 9);
//   - [Estimate] measures delay, loss and rate from the other end's reports, and [Reporter] says when to send one;
//   - [Liveness] tells when nothing comes through at all.
//
// Nothing here does I/O or has a clock. Times are nanoseconds on one clock of the caller that does not go backwards;
// sizes of lane packets are bytes of UDP payload. A lane has one of each. A [Joiner] belongs to the thread that opens the
// lane's packets; everything else to whoever holds the lane's timers, under a lock if more than one thread does.
package path

import "math"

// Never is the time of what is not going to happen.
const Never = math.MaxInt64

const (
	microsecond = 1_000
	millisecond = 1_000_000
	second      = 1_000_000_000
)
