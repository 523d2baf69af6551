package path

import (
	"net/netip"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

const (
	// MaxPaths is how many paths of a lane are known at a time: the one in use and those that may become it.
	MaxPaths = 4

	// ChallengeBytes is the length of a lane packet with nothing but a PATH_CHALLENGE, or a PATH_RESPONSE.
	ChallengeBytes = lane.OverheadBytes + 1 + lane.PathDataBytes

	challengeNanos    = 250 * millisecond // until a challenge is repeated, doubled each time
	maxChallengeNanos = 2 * second
	// validationNanos is how long a path has to answer: several times three probe timeouts of any usable path
	// (RFC 9000 section 8.2.4).
	validationNanos = 6 * second
	// spareNanos is how long a path that has answered may be gone back to without asking again.
	spareNanos = 60 * second
	// keptChallenges is how many challenges of a path may be answered; older ones are forgotten.
	keptChallenges = 4
	// amplification is how many bytes go to an address that has not been validated, for each byte that has come
	// from there (RFC 9000 section 8.1).
	amplification = 3
)

// Address is the two ends of a path. It is comparable; IPv4 addresses are never written as IPv6 ones.
type Address struct {
	// Remote is the other end's.
	Remote netip.AddrPort
	// Local and InterfaceIndex are where its packets come in, and answers leave. They are not valid and 0 where the
	// system does not tell.
	Local          netip.Addr
	InterfaceIndex uint32
}

// Roaming says what a packet from some address has led to.
type Roaming uint8

// The outcomes.
const (
	// RoamingNone means that nothing has changed.
	RoamingNone Roaming = iota
	// RoamingNew means that a path is to be validated: challenges are due, and it wants a connection ID of its own
	// (RFC 9000 section 9.5).
	RoamingNew
	// RoamingMoved means that another path is in use now. What was measured of the one before does not hold.
	RoamingMoved
)

// Challenge is a PATH_CHALLENGE to be sent.
type Challenge struct {
	To Address
	// Path is less than [MaxPaths] and names the path as long as it is known: an index for its connection ID.
	Path int
}

type pathState uint8

const (
	pathFree pathState = iota
	pathAsked
	pathValid
)

type knownPath struct {
	address       Address
	number        uint64 // the highest that has come from there
	receivedBytes uint64
	sentBytes     uint64
	heardNanos    int64
	askedNanos    int64 // when it was first asked
	nextNanos     int64 // when to ask again
	waitNanos     int64
	validNanos    int64 // when it answered
	data          [keptChallenges]lane.PathData
	challenges    int
	state         pathState
	trusted       bool // not bound by the amplification limit
	wanted        bool // by us: to be moved to as soon as it answers
	asking        bool
}

// Validation follows the other end of a lane through changes of its address (RFC 9000 sections 8.2 and 9). A packet with
// the highest number so far that comes from a new address makes that path a candidate; when it has answered a challenge
// the lane moves there, unless a later packet has come on the path in use. The path left is asked too and, if it
// answers, kept to go back to.
type Validation struct {
	paths  [MaxPaths]knownPath
	active int
}

// NewValidation starts with a path that is known to belong to the other end: the session's.
func NewValidation(active Address, nowNanos int64) *Validation {
	v := &Validation{}
	v.paths[0] = knownPath{
		address: active, state: pathValid, trusted: true, heardNanos: nowNanos, validNanos: nowNanos, nextNanos: Never,
	}
	return v
}

// Active returns the path in use and its index.
func (v *Validation) Active() (Address, int) { return v.paths[v.active].address, v.active }

// Received is told of a packet that was opened: the address it came from, its number, whether that is the highest opened
// so far, and its length. It must be told of every packet that is not from the active path; of those that are, once per
// batch is enough, with the highest of them.
func (v *Validation) Received(from Address, number uint64, highest bool, bytes int, nowNanos int64) Roaming {
	i := v.find(from)
	if i < 0 {
		if !highest {
			return RoamingNone // a delayed copy must move nobody
		}
		v.ask(from, number, bytes, nowNanos)
		return RoamingNew
	}
	p := &v.paths[i]
	p.receivedBytes += uint64(bytes)
	p.heardNanos = nowNanos
	p.number = max(p.number, number)
	if i == v.active || !highest {
		return RoamingNone
	}
	if p.state == pathValid {
		if nowNanos-p.validNanos < spareNanos {
			return v.move(i, nowNanos)
		}
		p.restart(nowNanos)
	}
	return RoamingNone
}

// Try asks a path that the caller itself wants, such as a new network of this host, and moves to it when it answers.
func (v *Validation) Try(to Address, nowNanos int64) Roaming {
	i := v.find(to)
	if i == v.active {
		return RoamingNone
	}
	outcome := RoamingNone
	if i < 0 {
		i = v.ask(to, 0, 0, nowNanos)
		outcome = RoamingNew
	} else {
		v.paths[i].restart(nowNanos)
	}
	v.paths[i].trusted, v.paths[i].wanted = true, true
	return outcome
}

// find returns the index of a known path, or -1.
func (v *Validation) find(a Address) int {
	for i := range v.paths {
		if v.paths[i].state != pathFree && v.paths[i].address == a {
			return i
		}
	}
	return -1
}

// ask makes a path a candidate, in place of the one that has been silent for longest if there are too many.
func (v *Validation) ask(a Address, number uint64, bytes int, nowNanos int64) int {
	at := -1
	for i := range v.paths {
		p := &v.paths[i]
		if p.state == pathFree {
			at = i
			break
		}
		if i != v.active && (at < 0 || p.heardNanos < v.paths[at].heardNanos) {
			at = i
		}
	}
	p := &v.paths[at]
	*p = knownPath{address: a, number: number, receivedBytes: uint64(bytes), heardNanos: nowNanos}
	p.restart(nowNanos)
	return at
}

// restart begins to ask a path.
func (p *knownPath) restart(nowNanos int64) {
	p.state, p.asking = pathAsked, true
	p.askedNanos, p.nextNanos, p.waitNanos = nowNanos, nowNanos, challengeNanos
	p.challenges, p.wanted = 0, false
}

// NextNanos returns when Challenge or Expire has something to do, or [Never].
func (v *Validation) NextNanos() int64 {
	next := int64(Never)
	for i := range v.paths {
		if p := &v.paths[i]; p.state != pathFree && p.asking {
			next = min(next, p.nextNanos, p.askedNanos+validationNanos)
		}
	}
	return next
}

// Challenge returns a PATH_CHALLENGE that is due: a packet with it, of [ChallengeBytes], is to be sent to that path
// alone. data must be unpredictable and fresh; it is used up only if the second result is true. Call it until that is
// false.
func (v *Validation) Challenge(data lane.PathData, nowNanos int64) (Challenge, bool) {
	v.expire(nowNanos)
	for i := range v.paths {
		p := &v.paths[i]
		if p.state == pathFree || !p.asking || nowNanos < p.nextNanos {
			continue
		}
		p.nextNanos = nowNanos + p.waitNanos
		p.waitNanos = min(2*p.waitNanos, maxChallengeNanos)
		if !p.maySend(ChallengeBytes) {
			continue
		}
		p.data[p.challenges%keptChallenges] = data
		p.challenges++
		return Challenge{To: p.address, Path: i}, true
	}
	return Challenge{}, false
}

// expire forgets the paths that have not answered in time, save the active one.
func (v *Validation) expire(nowNanos int64) {
	for i := range v.paths {
		p := &v.paths[i]
		if p.state == pathFree || !p.asking || nowNanos-p.askedNanos < validationNanos {
			continue
		}
		p.asking = false
		if i != v.active {
			p.state = pathFree
		}
	}
}

// Responded is told of a PATH_RESPONSE, from wherever (RFC 9000 section 8.2.3). mine is false for one that answers no
// challenge of a path: it may be one of a [Search].
func (v *Validation) Responded(data lane.PathData, nowNanos int64) (outcome Roaming, mine bool) {
	for i := range v.paths {
		p := &v.paths[i]
		if p.state == pathFree || !p.answers(data) {
			continue
		}
		p.state, p.trusted, p.validNanos = pathValid, true, nowNanos
		p.asking, p.challenges = false, 0
		if i == v.active || !p.wanted && p.number <= v.paths[v.active].number {
			p.wanted = false
			return RoamingNone, true // the other end is still, or again, where it was
		}
		return v.move(i, nowNanos), true
	}
	return RoamingNone, false
}

func (p *knownPath) answers(data lane.PathData) bool {
	for k := range min(p.challenges, keptChallenges) {
		if p.data[k] == data {
			return true
		}
	}
	return false
}

// move makes a valid path the active one, and asks the one before whether it is still there.
func (v *Validation) move(i int, nowNanos int64) Roaming {
	left := &v.paths[v.active]
	left.restart(nowNanos)
	// Only what comes from the path left after this moves the lane back, not its answer.
	v.paths[i].number = max(v.paths[i].number, left.number)
	v.paths[i].wanted = false
	v.active = i
	return RoamingMoved
}

// Index returns the index of a known path, as of a [Challenge], or -1.
func (v *Validation) Index(a Address) int { return v.find(a) }

// MaySend reports whether so many bytes may be sent to an address, such as a PATH_RESPONSE, and counts them. To a path
// that has not been validated go three times the bytes that came from there, and to an unknown address nothing.
func (v *Validation) MaySend(to Address, bytes int) bool {
	i := v.find(to)
	return i >= 0 && v.paths[i].maySend(bytes)
}

func (p *knownPath) maySend(bytes int) bool {
	if !p.trusted && p.sentBytes+uint64(bytes) > amplification*p.receivedBytes {
		return false
	}
	p.sentBytes += uint64(bytes)
	return true
}

// FallBack moves to the spare path that was heard last, if there is one: for a lane that has become suspect.
func (v *Validation) FallBack(nowNanos int64) Roaming {
	best := -1
	for i := range v.paths {
		p := &v.paths[i]
		if i == v.active || p.state != pathValid || nowNanos-p.validNanos >= spareNanos {
			continue
		}
		if best < 0 || p.validNanos > v.paths[best].validNanos {
			best = i
		}
	}
	if best < 0 {
		return RoamingNone
	}
	return v.move(best, nowNanos)
}
