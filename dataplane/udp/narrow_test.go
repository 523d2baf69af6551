package udp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// narrowRun drives narrowPaths for one remote, at times in milliseconds.
type narrowRun struct {
	t *testing.T
	*narrowPaths
	remote netip.AddrPort
}

func newNarrowRun(t *testing.T) *narrowRun {
	return &narrowRun{t: t, narrowPaths: newNarrowPaths(), remote: netip.MustParseAddrPort("192.0.2.1:443")}
}

const (
	initialByte, handshakeByte, shortByte = 0xc3, 0xe3, 0x43
	millis                                = int64(time.Millisecond)
)

// writes checks what is to become of a packet.
func (r *narrowRun) writes(at int64, first byte, bytes int, fragments, sound bool) {
	r.t.Helper()
	f, s := r.writing(r.remote, first, bytes, at*millis+1)
	if f != fragments || s != sound {
		r.t.Errorf("at %d ms %d bytes: fragments %t, sound %t", at, bytes, f, s)
	}
}

func (r *narrowRun) hears(at int64, first byte, bytes int, fragmented bool) {
	datagram := make([]byte, bytes)
	datagram[0] = first
	r.heard(r.remote, datagram, fragmented, at*millis+1)
}

// inFragments asks with a packet that counts for nothing else.
func (r *narrowRun) inFragments(at int64) bool {
	f, _ := r.writing(r.remote, shortByte, 1000, at*millis+1)
	return f
}

func TestUnansweredHandshakesGoInFragments(t *testing.T) {
	r := newNarrowRun(t)
	r.writes(0, initialByte, 1200, false, false)
	r.writes(2, initialByte, 1200, false, false) // the same burst
	r.writes(300, initialByte, 1200, false, true)
	r.writes(302, initialByte, 1200, false, false)
	r.writes(900, initialByte, 1200, true, true)
	r.writes(901, shortByte, 1200, true, false)
	for _, bytes := range []int{100, wholeBytes, minQUICBytes + 1, 1420} {
		r.writes(902, shortByte, bytes, false, false)
		r.writes(903, initialByte, bytes, false, false)
	}
	r.writes(904, shortByte, wholeBytes+1, true, false)
	r.hears(950, initialByte, 1200, true)
	if !r.inFragments(960) {
		t.Error("the answer took the fragments away that it came by")
	}
}

func TestAnsweredHandshakesGoWhole(t *testing.T) {
	for name, first := range map[string]byte{"Initial": initialByte, "Handshake": handshakeByte, "1-RTT": shortByte} {
		t.Run(name, func(t *testing.T) {
			r := newNarrowRun(t)
			for begin := int64(0); begin < 50_000; begin += 5000 {
				r.writes(begin, initialByte, 1200, false, false)
				r.writes(begin+300, initialByte, 1200, false, true)
				r.hears(begin+500, first, 1200, false)
				r.writes(begin+900, handshakeByte, 1200, false, false)
			}
		})
	}
}

// A server's client that asks again has not been answered, whatever it is that we hear.
func TestAskedAgainIsUnanswered(t *testing.T) {
	r := newNarrowRun(t)
	r.hears(0, initialByte, 1200, false)
	r.writes(1, initialByte, 1200, false, false)
	r.hears(300, initialByte, 1200, false)
	r.writes(301, initialByte, 1200, false, false) // whoever has asked need not be sounded
	r.hears(900, initialByte, 1200, false)
	r.writes(901, handshakeByte, 1200, true, false)

	r = newNarrowRun(t)
	for at := int64(0); at < 5000; at += 300 {
		r.hears(at, initialByte, 1200, false)
		r.writes(at+1, initialByte, 1200, false, false)
		r.hears(at+2, handshakeByte, 1200, false)
	}
}

func TestAFragmentedHandshakeIsAnsweredInFragments(t *testing.T) {
	r := newNarrowRun(t)
	r.hears(0, shortByte, 1200, true)
	r.hears(0, handshakeByte, 1200, true)
	r.hears(0, initialByte, 1199, true) // no client sends that
	if r.inFragments(0) || r.sets != nil {
		t.Error("a packet that is no Initial is a sign")
	}
	r.hears(0, initialByte, 1200, true)
	r.writes(1, initialByte, 1200, true, false)
	r.writes(1, shortByte, 1000, true, false)
	other := netip.MustParseAddrPort("192.0.2.1:444")
	if f, _ := r.writing(other, initialByte, 1200, millis); f {
		t.Error("another port is taken for the same path")
	}
}

func TestWhatTheInterfaceRefusesGoesInFragments(t *testing.T) {
	r := newNarrowRun(t)
	for bytes, want := range map[int]bool{1420: false, 1201: false, wholeBytes: false} {
		if got := r.refused(r.remote, bytes, 0); got != want || r.inFragments(0) {
			t.Errorf("%d bytes: %t", bytes, got)
		}
	}
	if !r.refused(r.remote, 1200, 0) || !r.inFragments(1) {
		t.Error("no fragments")
	}
}

// A lane's search knows best, in both directions.
func TestALaneSettlesWhetherAPathIsNarrow(t *testing.T) {
	r := newNarrowRun(t)
	r.carries(r.remote, 1200, 0)
	if r.sets != nil || r.inFragments(0) {
		t.Error("a path that carries enough takes memory")
	}
	r.carries(r.remote, 1199, 0)
	if !r.inFragments(1) {
		t.Error("no fragments")
	}
	r.carries(r.remote, 1200, 2)
	if r.inFragments(3) || r.any() {
		t.Error("fragments")
	}
	r.hears(4, initialByte, 1200, true)
	r.carries(r.remote, 1420, 5)
	if r.inFragments(6) || r.any() {
		t.Error("fragments")
	}
}

func TestNarrowPathsAreForgotten(t *testing.T) {
	const minute = 60_000
	r := newNarrowRun(t)
	r.refused(r.remote, 1200, 0)
	for at := int64(1); at < 10; at++ { // in use
		r.writes(at*minute, shortByte, 40, false, false)
	}
	if !r.inFragments(9*minute + 1) {
		t.Error("a path in use was forgotten")
	}
	if r.inFragments(12*minute) || r.any() {
		t.Error("an idle path was not forgotten")
	}

	// A gateway that was not there is not taken for a narrow path once it is.
	r = newNarrowRun(t)
	for _, at := range []int64{0, 300, 900, 2100} {
		r.writing(r.remote, initialByte, 1200, at*millis)
	}
	r.writes(2101, initialByte, 1200, true, false)
	r.writes(5200, initialByte, 1200, false, false)

	// One that was is one still.
	for _, at := range []int64{5500, 6100} {
		r.writing(r.remote, initialByte, 1200, at*millis)
	}
	r.hears(6200, handshakeByte, 1200, true)
	r.writes(20_000, initialByte, 1200, true, false)
}

func TestSoundingsAreAnswered(t *testing.T) {
	r := newNarrowRun(t)
	r.writes(0, initialByte, 1200, false, false)
	r.hears(100, shortByte, 42, false)
	r.writes(300, initialByte, 1200, false, true)
	if p, _ := r.path(r.remote, 301*millis); p.answers {
		t.Error("what came before the sounding is its answer")
	}
	r.writes(900, initialByte, 1200, true, true)
	r.hears(902, shortByte, 42, false)
	r.writes(1800, initialByte, 1200, true, true) // which does not make the handshake answered
	if p, _ := r.path(r.remote, 1801*millis); !p.answers || p.reason != narrowAnswerless || p.heard {
		t.Errorf("%+v", p)
	}
	r.hears(1900, handshakeByte, 1200, false)
	if p, _ := r.path(r.remote, 1901*millis); p.sounded || !p.heard {
		t.Errorf("%+v", p)
	}
}

// A flood of strangers takes a bounded memory and no path that is in use.
func TestStrangersDoNotPushOutNarrowPaths(t *testing.T) {
	r := newNarrowRun(t)
	r.hears(0, initialByte, 1200, true)
	r.writes(1, initialByte, 1200, true, false)
	r.hears(2, shortByte, 100, false)
	var address [4]byte
	initial := make([]byte, 1200)
	initial[0] = initialByte
	for i := range uint32(20 * narrowSets * narrowWays) {
		binary.BigEndian.PutUint32(address[:], i)
		r.heard(netip.AddrPortFrom(netip.AddrFrom4(address), 1), initial, i%2 == 0, int64(i))
	}
	if !r.inFragments(100) {
		t.Error("pushed out")
	}
	if n := r.narrow.Load(); n > narrowSets*narrowWays {
		t.Errorf("%d narrow paths", n)
	}
}

// FuzzNarrowPaths: whatever comes, the count of narrow paths is that of the table.
func FuzzNarrowPaths(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{initialByte, 0, 4, initialByte, 1, 9, shortByte, 2, 1, initialByte, 250, 250})
	f.Fuzz(func(t *testing.T, script []byte) {
		n := newNarrowPaths()
		now := int64(0)
		buf := make([]byte, 1500)
		for ; len(script) >= 3; script = script[3:] {
			remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, script[1] >> 4}), 443)
			now += int64(script[2]) * 10 * millis
			buf[0] = script[0]
			bytes := 1 + int(script[2])*5
			switch script[1] % 5 {
			case 0:
				n.writing(remote, script[0], bytes, now)
			case 1:
				n.heard(remote, buf[:bytes], script[1]&8 != 0, now)
			case 2:
				n.refused(remote, bytes, now)
			case 3:
				n.carries(remote, bytes, now)
			case 4:
				n.path(remote, now)
			}
		}
		count := int64(0)
		for _, set := range n.sets {
			for _, p := range set {
				if p.reason != notNarrow {
					count++
				}
				if p.sounded {
					count++
				}
			}
		}
		if count != n.narrow.Load() {
			t.Errorf("%d counted, %d there", n.narrow.Load(), count)
		}
	})
}
