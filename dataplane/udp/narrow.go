package udp

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// minQUICBytes is what QUIC must be able to send at least, in bytes of UDP payload (RFC 9000 section 14): a path that
	// carries no IPv4 packet of 28 bytes more is a narrow one. Whatever is longer is a probe, or of a connection that
	// began on a wider path: it never goes in fragments, so that QUIC's own search is not misled.
	minQUICBytes = 1200
	// wholeBytes is what needs no fragments anywhere: an IPv4 packet of 576 bytes.
	wholeBytes = fragmentBytes - ipv4HeaderBytes - udpHeaderBytes

	// answerlessBursts is how many bursts of a handshake may go without an answer.
	answerlessBursts = 2
	// burstNanos is how far apart two bursts are at least: the first probe timeout is later (RFC 9002 section 6.2.2).
	burstNanos = int64(100 * time.Millisecond)
	// attemptNanos is a silence after which a handshake is another one, which knows nothing of the first.
	attemptNanos = int64(3 * time.Second)
	// askedNanos is how long it is remembered which end began.
	askedNanos = int64(10 * time.Second)
	// forgetNanos is how long a path may lie idle; sessions keep themselves alive more often.
	forgetNanos = int64(2 * time.Minute)

	// soundingBytes is the length of a sounding: longer than any stateless reset must be, which answers it.
	soundingBytes = 60
	// minResetBytes is the shortest stateless reset (RFC 9000 section 10.3).
	minResetBytes = 21

	narrowSets, narrowWays = 128, 8
)

// narrowReason is how a path was found to be narrow.
type narrowReason uint8

const (
	notNarrow        narrowReason = iota
	narrowRefused                 // our own interface is (EMSGSIZE)
	narrowFragmented              // the other end's handshake came in fragments
	narrowAnswerless              // handshakes were not answered
	narrowSearched                // a lane has found out
)

// narrowPath is what is known of the way to one IPv4 address and port.
type narrowPath struct {
	remote    netip.AddrPort
	usedNanos int64
	longNanos int64 // last full packet of a handshake that we sent, or 0
	askNanos  int64 // last Initial by which the other end began, or 0
	burst     int64 // begin of the last burst, nanoseconds
	bursts    int   // without an answer
	reason    narrowReason
	heard     bool // since then, something that is no Initial
	sounded   bool
	answers   bool // a small packet was answered when long ones were not
}

// narrowPaths finds out which paths carry less than the packets of QUIC. Memory is bounded: strangers can push out each
// other, and handshakes, but no path that is in use in fragments. Time is in nanoseconds since any moment.
type narrowPaths struct {
	seed   maphash.Seed
	narrow atomic.Int64 // about how many paths are narrow or being sounded: 0 says that there are none

	mu   sync.Mutex
	sets [][narrowWays]narrowPath // made when first needed
}

func newNarrowPaths() *narrowPaths { return &narrowPaths{seed: maphash.MakeSeed()} }

// find returns what is known of a path, or nil; with add it makes room for it if it can.
func (n *narrowPaths) find(remote netip.AddrPort, add bool, nowNanos int64) *narrowPath {
	if n.sets == nil {
		if !add {
			return nil
		}
		n.sets = make([][narrowWays]narrowPath, narrowSets)
	}
	set := &n.sets[maphash.Comparable(n.seed, remote)%narrowSets]
	victim, worth := (*narrowPath)(nil), int64(0)
	for i := range set {
		p := &set[i]
		if p.remote.IsValid() && nowNanos-p.usedNanos > forgetNanos {
			n.clear(p)
		}
		if p.remote == remote {
			return p
		}
		// The least recently used goes, handshakes before narrow paths; one that is in use stays.
		w := p.usedNanos
		switch {
		case !p.remote.IsValid():
			w = -1 << 62
		case p.reason != notNarrow && p.heard:
			continue
		case p.reason != notNarrow:
			w += forgetNanos
		}
		if victim == nil || w < worth {
			victim, worth = p, w
		}
	}
	if !add || victim == nil {
		return nil
	}
	n.clear(victim)
	victim.remote, victim.usedNanos = remote, nowNanos
	return victim
}

func (n *narrowPaths) clear(p *narrowPath) {
	n.settle(p, notNarrow)
	n.sound(p, false)
	*p = narrowPath{}
}

// settle says whether a path is narrow, and why.
func (n *narrowPaths) settle(p *narrowPath, reason narrowReason) {
	switch {
	case p.reason == notNarrow && reason != notNarrow:
		p.heard = false
		n.narrow.Add(1)
	case p.reason != notNarrow && reason == notNarrow:
		n.narrow.Add(-1)
	}
	p.reason = reason
}

func (n *narrowPaths) sound(p *narrowPath, on bool) {
	if on && !p.sounded {
		n.narrow.Add(1)
	} else if !on && p.sounded {
		n.narrow.Add(-1)
	}
	p.sounded = on
}

// any reports whether any path is narrow, or being sounded.
func (n *narrowPaths) any() bool { return n.narrow.Load() != 0 }

// concerns reports whether datagrams that begin with first can say anything about a path, or may be of one that is narrow:
// most are neither.
func (n *narrowPaths) concerns(first byte) bool { return isLong(first) || n.any() }

// isLong reports whether a packet has QUIC's long header, as those of a handshake have.
func isLong(first byte) bool { return first&0x80 != 0 }

// isInitial reports whether a datagram begins with an Initial that wants an answer: QUIC version 1, padded.
func isInitial(datagram []byte) bool {
	return len(datagram) >= minQUICBytes && datagram[0]&0xf0 == 0xc0
}

// writing is told of datagrams of that many bytes, which begin with first, before they are sent. It reports whether they
// have to go in fragments, and whether the path is to be sounded.
func (n *narrowPaths) writing(remote netip.AddrPort, first byte, bytes int, nowNanos int64) (fragments, sound bool) {
	handshake := isLong(first) && bytes > wholeBytes && bytes <= minQUICBytes
	if !handshake && !n.any() {
		return false, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.find(remote, handshake, nowNanos)
	if p == nil {
		return false, false
	}
	p.usedNanos = nowNanos
	if handshake {
		sound = n.burst(p, nowNanos)
	}
	return p.reason != notNarrow && bytes > wholeBytes && bytes <= minQUICBytes, sound
}

// burst counts what a handshake sends. It reports whether to sound the path: we began, and had to repeat ourselves.
func (n *narrowPaths) burst(p *narrowPath, nowNanos int64) (sound bool) {
	if p.longNanos != 0 && nowNanos-p.longNanos > attemptNanos {
		p.bursts, p.answers = 0, false
		if p.reason == narrowAnswerless && !p.heard {
			n.settle(p, notNarrow) // nobody was there
		}
	}
	p.longNanos = nowNanos
	if p.bursts > 0 && nowNanos-p.burst < burstNanos {
		return false
	}
	p.bursts++
	p.burst = nowNanos
	if p.bursts > answerlessBursts && p.reason == notNarrow {
		n.settle(p, narrowAnswerless)
	}
	if sound = p.bursts > 1 && !p.asked(nowNanos); sound {
		n.sound(p, true)
	}
	return sound
}

// asked reports whether the other end began.
func (p *narrowPath) asked(nowNanos int64) bool {
	return p.askNanos != 0 && nowNanos-p.askNanos < askedNanos
}

// heard is told of a datagram that is not a lane's. fragmented says that it came in fragments.
func (n *narrowPaths) heard(remote netip.AddrPort, datagram []byte, fragmented bool, nowNanos int64) {
	if !n.concerns(datagram[0]) {
		return
	}
	initial := isInitial(datagram)
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.find(remote, initial, nowNanos)
	if p == nil {
		return
	}
	if p.sounded && !isLong(datagram[0]) && len(datagram) < soundingBytes && len(datagram) >= minResetBytes {
		p.answers = true // but long packets are not
		return
	}
	p.usedNanos = nowNanos
	if initial && (p.longNanos == 0 || nowNanos-p.longNanos > askedNanos || p.asked(nowNanos)) {
		p.askNanos = nowNanos // again, if our answer has not arrived
	} else {
		p.bursts = 0
		p.heard = p.heard || p.reason != notNarrow
		n.sound(p, false)
	}
	if initial && fragmented && p.reason == notNarrow {
		n.settle(p, narrowFragmented)
	}
}

// refused is told of a packet of that many bytes that the interface did not take. It reports whether it has to go in
// fragments.
func (n *narrowPaths) refused(remote netip.AddrPort, bytes int, nowNanos int64) bool {
	if bytes > minQUICBytes || bytes <= wholeBytes {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.find(remote, true, nowNanos)
	if p == nil {
		return false
	}
	n.settle(p, narrowRefused)
	return true
}

// carries is told of the longest packet that passes, as found by the search of a lane.
func (n *narrowPaths) carries(remote netip.AddrPort, bytes int, nowNanos int64) {
	narrow := bytes < minQUICBytes
	if !narrow && !n.any() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.find(remote, narrow, nowNanos)
	switch {
	case p == nil:
	case !narrow:
		n.settle(p, notNarrow)
	default:
		p.usedNanos = nowNanos
		if p.reason == notNarrow {
			n.settle(p, narrowSearched)
		}
		p.heard = true
	}
}

// path returns a copy of what is known of a path.
func (n *narrowPaths) path(remote netip.AddrPort, nowNanos int64) (narrowPath, bool) {
	if !n.any() {
		return narrowPath{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.find(remote, false, nowNanos)
	if p == nil {
		return narrowPath{}, false
	}
	return *p, true
}
