package netsim

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// two is a network of two hosts; what b gets is in got.
type two struct {
	t    *testing.T
	net  *Network
	a, b *Host
	from *Socket
	to   netip.AddrPort
	got  []*Datagram
	at   []int64
}

func newTwo(t *testing.T, seed uint64, up, down Conditions) *two {
	t.Helper()
	n := &two{t: t, net: New(Config{Seed: seed})}
	var err error
	if n.a, err = n.net.AddHost(HostConfig{Addr: netip.MustParseAddr("192.0.2.1"), Up: up}); err != nil {
		t.Fatal(err)
	}
	if n.b, err = n.net.AddHost(HostConfig{Addr: netip.MustParseAddr("192.0.2.2"), Down: down}); err != nil {
		t.Fatal(err)
	}
	if n.from, err = n.a.Open(1, func(*Datagram) {}); err != nil {
		t.Fatal(err)
	}
	_, err = n.b.Open(2, func(d *Datagram) {
		n.got, n.at = append(n.got, d), append(n.at, n.net.Nanos())
	})
	if err != nil {
		t.Fatal(err)
	}
	n.to = netip.MustParseAddrPort("192.0.2.2:2")
	return n
}

// send sends numbered datagrams of some bytes, one each microsecond, and has them all arrive.
func (n *two) send(count, bytes int, ecn uint8) {
	n.t.Helper()
	for i := range count {
		payload := make([]byte, max(bytes, 4))
		copy(payload, fmt.Sprintf("%4d", i))
		if err := n.from.Send(netip.Addr{}, n.to, ecn, payload); err != nil {
			n.t.Fatal(err)
		}
		n.net.Run(n.net.Nanos() + 1000)
	}
	n.net.Run(n.net.Nanos() + 10*second)
}

// order is the numbers of what has come.
func (n *two) order() (numbers []int) {
	for _, d := range n.got {
		i := 0
		if _, err := fmt.Sscanf(string(d.Payload[:4]), "%4d", &i); err != nil {
			n.t.Fatal(err)
		}
		numbers = append(numbers, i)
	}
	return numbers
}

func TestPerfectLinks(t *testing.T) {
	n := newTwo(t, 1, Conditions{DelayNanos: 5 * millisecond}, Conditions{DelayNanos: 7 * millisecond})
	n.send(100, 10, 2)
	if numbers := n.order(); len(numbers) != 100 || !slices.IsSorted(numbers) {
		t.Fatalf("got %v", numbers)
	}
	for i, at := range n.at {
		if want := int64(i)*1000 + 12*millisecond; at != want {
			t.Fatalf("datagram %d came at %d, want %d", i, at, want)
		}
	}
	if d := n.got[0]; d.From != n.from.LocalAddr() || d.To != n.to || d.ECN != 2 || d.Corrupt {
		t.Errorf("got %+v", d)
	}
	if s := n.net.Stats(); s.Sent != 100 || s.Arrived != 100 {
		t.Errorf("counted %+v", s)
	}
}

// TestChance holds what links do by chance against how often they are to do it.
func TestChance(t *testing.T) {
	const count = 2000
	about := func(got, want float64) bool { return got > 0.8*want && got < 1.2*want }
	tests := map[string]struct {
		c  Conditions
		ok func(n *two) bool
	}{
		"loss":      {Conditions{Loss: 0.3}, func(n *two) bool { return about(float64(count-len(n.got)), 0.3*count) }},
		"duplicate": {Conditions{Duplicate: 0.3}, func(n *two) bool { return about(float64(len(n.got)-count), 0.3*count) }},
		"corrupt": {Conditions{Corrupt: 0.3}, func(n *two) bool {
			corrupt := 0
			for _, d := range n.got {
				if d.Corrupt {
					corrupt++
				}
			}
			return about(float64(corrupt), 0.3*count) && len(n.got) == count
		}},
		"mark": {Conditions{MarkCE: 0.3}, func(n *two) bool {
			marked := 0
			for _, d := range n.got {
				if d.ECN == ce {
					marked++
				}
			}
			return about(float64(marked), 0.3*count)
		}},
		"jitter keeps the order": {Conditions{JitterNanos: millisecond}, func(n *two) bool {
			return slices.IsSorted(n.order()) && n.at[1]-n.at[0] != 1000
		}},
		"reorder": {Conditions{Reorder: 0.3, HoldNanos: millisecond}, func(n *two) bool {
			overtaken, highest := 0, -1
			for _, number := range n.order() {
				if number < highest {
					overtaken++
				}
				highest = max(highest, number)
			}
			return about(float64(overtaken), 0.3*count) && len(n.got) == count
		}},
		"dead": {Conditions{Dead: true}, func(n *two) bool { return len(n.got) == 0 && n.net.Stats().Dead == count }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newTwo(t, 5, test.c, Conditions{})
			n.send(count, 4, 1)
			if !test.ok(n) {
				t.Errorf("%d of %d came, %+v", len(n.got), count, n.net.Stats())
			}
		})
	}
}

func TestCorruptionSparesTheCopy(t *testing.T) {
	n := newTwo(t, 1, Conditions{Corrupt: 1, Duplicate: 1}, Conditions{})
	n.send(1, 100, 0)
	if len(n.got) != 2 || n.got[0].Corrupt == n.got[1].Corrupt {
		t.Fatalf("got %d datagrams", len(n.got))
	}
	if slices.Equal(n.got[0].Payload, n.got[1].Payload) || n.got[0].ID != n.got[1].ID {
		t.Error("a copy is not what was sent")
	}
}

func TestMTU(t *testing.T) {
	for _, a := range []string{"192.0.2.9", "2001:db8::9"} {
		addr := netip.MustParseAddr(a)
		header := HeaderBytes(addr)
		net := New(Config{})
		up := Conditions{MTUBytes: 1400}
		h, err := net.AddHost(HostConfig{Addr: addr, Up: up, InterfaceBytes: 1450})
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		s, err := h.Open(9, func(*Datagram) { got++ })
		if err != nil {
			t.Fatal(err)
		}
		send := func(ipBytes int) error {
			err := s.Send(netip.Addr{}, s.LocalAddr(), 0, make([]byte, ipBytes-header))
			net.Run(net.Nanos() + second)
			return err
		}
		if err := send(1400); err != nil || got != 1 {
			t.Errorf("1400 bytes: %v, %d came", err, got)
		}
		if err := send(1401); err != nil || got != 1 || net.Stats().TooLong != 1 {
			t.Errorf("1401 bytes: %v, %d came", err, got)
		}
		if tooLong, ok := errors.AsType[TooLongError](send(1451)); !ok || int(tooLong) != 1451-header {
			t.Errorf("1451 bytes: %v", tooLong)
		}
	}
}

func TestMovedHost(t *testing.T) {
	n := newTwo(t, 1, Conditions{}, Conditions{DelayNanos: second})
	n.send(1, 4, 0)
	if err := n.from.Send(netip.Addr{}, n.to, 0, []byte("   1")); err != nil { // under way when b moves
		t.Fatal(err)
	}
	if err := n.b.Move(netip.MustParseAddr("192.0.2.3")); err != nil {
		t.Fatal(err)
	}
	n.net.Run(n.net.Nanos() + 10*second)
	if len(n.got) != 1 || n.net.Stats().Unreachable != 1 {
		t.Errorf("%d came, %+v", len(n.got), n.net.Stats())
	}
	n.to = netip.MustParseAddrPort("192.0.2.3:2")
	n.send(1, 4, 0)
	if len(n.got) != 2 {
		t.Error("nothing comes to the new address")
	}
	if err := n.from.Send(netip.MustParseAddr("192.0.2.77"), n.to, 0, []byte("   1")); err != nil {
		t.Fatal(err)
	}
	n.net.Run(n.net.Nanos() + 10*second)
	if len(n.got) != 2 {
		t.Error("a datagram leaves from an address that the host has not")
	}
	if err := n.b.Move(n.a.Addr()); !errors.Is(err, ErrAddress) {
		t.Errorf("two hosts at one address: %v", err)
	}
	if _, err := n.b.Open(2, nil); !errors.Is(err, ErrPort) {
		t.Errorf("two sockets at one port: %v", err)
	}
}

// TestNATs lets a host behind each kind of NAT be spoken to by those it has sent to, and by others.
func TestNATs(t *testing.T) {
	outside := netip.MustParseAddr("198.51.100.1")
	tests := []struct {
		kind                      NATKind
		sameAddress, otherAddress bool // who else gets in
		samePort                  bool // for another destination
	}{
		{FullCone, true, true, true},
		{AddressRestricted, true, false, true},
		{PortRestricted, false, false, true},
		{Symmetric, false, false, false},
	}
	for _, test := range tests {
		t.Run(test.kind.String(), func(t *testing.T) {
			n := newNATed(t, NATConfig{Kind: test.kind, Addr: outside, IdleNanos: 30 * second})
			first := n.seenBy(0)
			if first.Addr() != outside || first == n.inside.LocalAddr() {
				t.Fatalf("seen at %v", first)
			}
			if !n.reached(0, first) || n.reached(1, first) != test.sameAddress || n.reached(2, first) != test.otherAddress {
				t.Errorf("lets in %v, %v, %v", n.reached(0, first), n.reached(1, first), n.reached(2, first))
			}
			if (n.seenBy(2) == first) != test.samePort {
				t.Error("maps another destination wrongly")
			}
			n.net.Run(n.net.Nanos() + 31*second)
			if n.reached(0, first) {
				t.Error("a mapping lasts for ever")
			}
			second := n.seenBy(0)
			n.nat.Rebind()
			if n.reached(0, second) || n.seenBy(0) == second {
				t.Error("a mapping survives a restart")
			}
			if err := n.nat.Move(netip.MustParseAddr("198.51.100.2")); err != nil {
				t.Fatal(err)
			}
			if third := n.seenBy(0); third.Addr() != n.nat.Addr() || !n.reached(0, third) {
				t.Errorf("after a move: seen at %v", third)
			}
		})
	}
}

// nated is a host behind a NAT and three sockets outside: two of one host, and one of another.
type nated struct {
	t       *testing.T
	net     *Network
	nat     *NAT
	inside  *Socket
	outside [3]*Socket
	seen    [3]netip.AddrPort
	got     int
}

func newNATed(t *testing.T, cfg NATConfig) *nated {
	t.Helper()
	n := &nated{t: t, net: New(Config{Seed: 3})}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	n.nat, err = n.net.AddNAT(cfg)
	must(err)
	h, err := n.net.AddHost(HostConfig{Addr: netip.MustParseAddr("10.0.0.1"), Behind: n.nat})
	must(err)
	n.inside, err = h.Open(5, func(*Datagram) { n.got++ })
	must(err)
	one, err := n.net.AddHost(HostConfig{Addr: netip.MustParseAddr("192.0.2.1")})
	must(err)
	two, err := n.net.AddHost(HostConfig{Addr: netip.MustParseAddr("192.0.2.2")})
	must(err)
	for i, h := range []*Host{one, one, two} {
		n.outside[i], err = h.Open(uint16(10+i), func(d *Datagram) { n.seen[i] = d.From })
		must(err)
	}
	return n
}

// seenBy sends to a socket outside and returns where that sees it come from.
func (n *nated) seenBy(i int) netip.AddrPort {
	if err := n.inside.Send(netip.Addr{}, n.outside[i].LocalAddr(), 0, []byte("x")); err != nil {
		n.t.Fatal(err)
	}
	n.net.Run(n.net.Nanos() + 1)
	return n.seen[i]
}

// reached reports whether what a socket outside sends to an address comes in.
func (n *nated) reached(i int, to netip.AddrPort) bool {
	before := n.got
	if err := n.outside[i].Send(netip.Addr{}, to, 0, []byte("x")); err != nil {
		n.t.Fatal(err)
	}
	n.net.Run(n.net.Nanos() + 1)
	return n.got == before+1
}

// TestSeeds: the same seed is the same network, another is another.
func TestSeeds(t *testing.T) {
	run := func(seed uint64) string {
		c := Conditions{
			DelayNanos: millisecond, JitterNanos: millisecond, Loss: 0.1, Duplicate: 0.1, Corrupt: 0.1, Reorder: 0.1,
			HoldNanos: millisecond, MarkCE: 0.1,
		}
		n := newTwo(t, seed, c, c)
		n.send(300, 20, 1)
		out := ""
		for i, d := range n.got {
			out += fmt.Sprint(n.at[i], *d)
		}
		return out
	}
	first := run(1)
	if again := run(1); again != first || run(2) == first {
		t.Error("what happens is not what the seed says")
	}
}

// TestTime: events happen in the order of their times, and time goes to the next one at most.
func TestTime(t *testing.T) {
	n := New(Config{})
	var order []int
	for i, delay := range []int64{30, 10, 20, 10} {
		n.After(delay, func() { order = append(order, i) })
	}
	n.Advance(25)
	if n.Nanos() != 10 || n.Next() != 10 {
		t.Errorf("now %d, next %d", n.Nanos(), n.Next())
	}
	n.Run(20)
	if !slices.Equal(order, []int{1, 3, 2}) || n.Nanos() != 20 {
		t.Errorf("%v happened until %d", order, n.Nanos())
	}
	if !n.Step() || n.Step() || n.Nanos() != 30 || n.Next() != Never {
		t.Errorf("ended at %d", n.Nanos())
	}
	n.Advance(5)
	if n.Nanos() != 30 {
		t.Error("time went back")
	}
}
