package impair

import (
	"encoding/binary"
	"testing"
	"time"
)

func FuzzClassify(f *testing.F) {
	f.Add([]byte{})
	f.Add(frameOf(protoUDP, 60, 1))
	ipv6 := func(chain ...byte) []byte {
		frame := make([]byte, ethernetBytes+40)
		binary.BigEndian.PutUint16(frame[12:], etherTypeIPv6)
		frame[ethernetBytes+6] = chain[0]
		return append(frame, chain[1:]...)
	}
	f.Add(ipv6(protoUDP))
	f.Add(ipv6(protoICMPv6, 135))
	f.Add(ipv6(protoHopByHop, protoICMPv6, 0, 5, 2, 0, 0, 0, 0, 143))
	f.Add(ipv6(protoFragment, protoUDP, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if c := classify(frame); c > other {
			t.Errorf("class %d", c)
		}
	})
}

func TestClassify(t *testing.T) {
	ipv6 := func(chain ...byte) []byte {
		frame := make([]byte, ethernetBytes+40)
		binary.BigEndian.PutUint16(frame[12:], etherTypeIPv6)
		frame[ethernetBytes+6] = chain[0]
		return append(frame, chain[1:]...)
	}
	for _, test := range []struct {
		name  string
		frame []byte
		want  class
	}{
		{"runt", make([]byte, 10), neighbour},
		{"IPv4 UDP", frameOf(protoUDP, 60, 0), udp},
		{"IPv4 TCP", frameOf(protoTCP, 60, 0), other},
		{"IGMP", frameOf(protoIGMP, 60, 0), neighbour},
		{"short IPv4", frameOf(protoUDP, 60, 0)[:20], other},
		{"IPv6 UDP", ipv6(protoUDP), udp},
		{"IPv6 UDP fragment", ipv6(protoFragment, protoUDP, 0, 0, 0, 0, 0, 0, 0), udp},
		{"IPv6 UDP behind options", ipv6(protoOptions, protoUDP, 0, 0, 0, 0, 0, 0, 0), udp},
		{"echo request", ipv6(protoICMPv6, 128), other},
		{"packet too big", ipv6(protoICMPv6, 2), other},
		{"neighbour solicitation", ipv6(protoICMPv6, 135), neighbour},
		{"MLDv2 report", ipv6(protoHopByHop, protoICMPv6, 0, 5, 2, 0, 0, 0, 0, 143), neighbour},
		{"cut extension", ipv6(protoHopByHop, protoUDP, 9, 0), other},
	} {
		if got := classify(test.frame); got != test.want {
			t.Errorf("%s: class %d, want %d", test.name, got, test.want)
		}
	}
}

// FuzzLine drives a line with arbitrary frames, settings and times; the books must balance and nothing
// may be early or stuck.
func FuzzLine(f *testing.F) {
	f.Add(uint64(1), []byte{0, 10, 200, 1, 1, 9, 2, 3, 5, 3, 255, 1})
	f.Add(uint64(7), []byte{3, 1, 1, 0, 0, 100, 0, 0, 100, 0, 0, 100, 1, 255, 255, 2, 2, 2})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		l := NewLine(seed)
		now := time.Duration(0)
		for ; len(script) >= 3; script = script[3:] {
			op, x, y := script[0]%4, script[1], script[2]
			now += time.Duration(x) * time.Millisecond
			switch op {
			case 0, 1:
				l.Offer(now, frameOf([]byte{protoTCP, protoUDP, protoIGMP}[y%3], 24+int(y)*20, 0))
			case 2:
				for _, ok := l.Take(now); ok; _, ok = l.Take(now) {
					continue
				}
				if next := l.Next(); next <= now {
					t.Fatalf("all taken at %v and the next is due at %v", now, next)
				}
			case 3:
				if err := l.Set(now, scriptedImpairments(x, y)); err != nil {
					t.Fatal(err)
				}
			}
			balance(t, l.Counters())
		}
		if err := l.Set(now, Impairments{}); err != nil {
			t.Fatal(err)
		}
		for next := l.Next(); next != Never; next = l.Next() {
			for _, ok := l.Take(next); ok; _, ok = l.Take(next) {
				continue
			}
		}
		if c := l.Counters(); c.Queued+c.OnWire != 0 || l.waiting != 0 || l.wireBytes != 0 {
			t.Errorf("empty line holds %d frames, %d and %d bytes", c.Queued+c.OnWire, l.waiting, l.wireBytes)
		}
		balance(t, l.Counters())
	})
}

func scriptedImpairments(x, y byte) Impairments {
	i := Impairments{
		Delay: time.Duration(x) * time.Millisecond, Jitter: time.Duration(y) * time.Millisecond,
		BitsPerSecond: int64(x%16) * 100_000, QueueBytes: int64(y) * 50,
		BlockUDP: x&16 > 0, BlockAll: y > 240, Duplicate: float64(x&64) / 128,
	}
	if y&1 > 0 {
		i.Loss, i.LossBurst = 0.2, float64(y%8)+0.25
	}
	if x&32 > 0 {
		i.Reorder, i.ReorderDelay, i.MTU = 0.5, (time.Duration(y)+1)*time.Millisecond, 1400
	}
	return i
}

func balance(t *testing.T, c Counters) {
	t.Helper()
	out := c.Delivered + c.Blocked + c.Oversized + c.QueueFull + c.Lost + c.WireFull + c.Queued + c.OnWire
	if c.Offered+c.Duplicated != out {
		t.Fatalf("%d frames in, %d accounted for: %+v", c.Offered+c.Duplicated, out, c)
	}
}
