package dataplane

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aethertunnel/aethertunnel/tun"
)

var (
	away4, away6   = netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")
	group4, group6 = netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("ff02::fb")
	link4, link6   = netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")
)

// TestDropsOfTheHost: every reason that a packet of our own host can meet, and what the host is told.
func TestDropsOfTheHost(t *testing.T) {
	long4, long6 := ip(gw4, a4, strings.Repeat("x", 1400)), ip(gw6, a6, strings.Repeat("x", 1400))
	jumbo := ip(gw4, a4, strings.Repeat("x", tun.MaxPacketBytes-28))
	for name, c := range map[string]struct {
		packet []byte
		reason Reason
		answer *icmpError // nil: the host is told nothing
	}{
		"garbage":            {[]byte("garbage"), DropMalformed, nil},
		"empty":              {nil, DropMalformed, nil},
		"cut short":          {ip(gw4, a4, "hello")[:30], DropMalformed, nil},
		"trailing":           {append(ip(gw6, a6, "hello"), 0), DropMalformed, nil},
		"to multicast":       {ip(gw4, group4, ""), DropNotForwardable, nil},
		"to multicast 6":     {ip(gw6, group6, ""), DropNotForwardable, nil},
		"from link-local":    {ip(link4, a4, ""), DropNotForwardable, nil},
		"from link-local 6":  {ip(link6, a6, ""), DropNotForwardable, nil},
		"from unspecified":   {ip(netip.IPv4Unspecified(), a4, ""), DropNotForwardable, nil},
		"to IPv4-mapped":     {ip(gw6, netip.MustParseAddr("::ffff:100.64.0.2"), ""), DropNotForwardable, nil},
		"not our source":     {ip(away4, a4, ""), DropSource, nil},
		"not our source 6":   {ip(away6, a6, ""), DropSource, nil},
		"a peer's source":    {ip(b4, a4, ""), DropSource, nil},
		"to nobody":          {ip(gw4, away4, "q"), DropNoRoute, &icmpError{kind: 3, code: 0}},
		"to nobody 6":        {ip(gw6, away6, "q"), DropNoRoute, &icmpError{kind: 1, code: 0}},
		"to ourselves":       {ip(gw4, gw4, "q"), DropNoRoute, &icmpError{kind: 3, code: 0}},
		"peer without any":   {ip(gw4, b4, "q"), DropNoSession, &icmpError{kind: 3, code: 1}},
		"peer without any 6": {ip(gw6, b6, "q"), DropNoSession, &icmpError{kind: 1, code: 3}},
		"too big":            {long4, DropTooBig, &icmpError{kind: 3, code: 4, mtu: 1300}},
		"too big 6":          {long6, DropTooBig, &icmpError{kind: 2, code: 0, mtu: 1300}},
		"the longest":        {jumbo, DropTooBig, &icmpError{kind: 3, code: 4, mtu: 1300}},
		"to 0.0.0.0/8":       {ip(gw4, netip.MustParseAddr("0.1.2.3"), ""), DropNotForwardable, nil},
		"to unspecified 6":   {ip(gw6, netip.IPv6Unspecified(), ""), DropNotForwardable, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := gatewaySnapshot(idA, idB)
				s.NICSources = hosts(gw4, gw6)
				gw := start(t, s)
				ours, theirs := newWire(10)
				ours.maxBytes = 1300
				gw.attach(idA, ours)
				gw.fromHost(c.packet)
				gw.expectDrops(map[Reason]uint64{c.reason: 1})
				if got := theirs.take(); len(got) != 0 {
					t.Errorf("the peer got %x", got)
				}
				told := gw.toHost()
				if c.answer == nil {
					if len(told) != 0 {
						t.Errorf("the host got %x", told)
					}
					return
				}
				// It comes from where the packet was going: from one of its own addresses the host would not believe it.
				want := *c.answer
				want.to, want.from = addressesOf(c.packet)
				want.about = c.packet
				isICMP(t, told, want)
			})
		})
	}
}

// TestDropsOfAPeer: every reason that a packet of member a can meet at the gateway, and what a is told. Nothing of it
// reaches the host or the other members.
func TestDropsOfAPeer(t *testing.T) {
	long4, long6 := ip(a4, b4, strings.Repeat("x", 1400)), ip(a6, b6, strings.Repeat("x", 1400))
	for name, c := range map[string]struct {
		packet []byte
		reason Reason
		answer *icmpError // nil: a is told nothing
	}{
		"garbage":              {[]byte("garbage"), DropMalformed, nil},
		"two packets":          {append(ip(a4, gw4, ""), ip(a4, gw4, "")...), DropMalformed, nil},
		"IPv4 in 6 bytes":      {[]byte{0x45, 0, 0, 6, 0, 0}, DropMalformed, nil},
		"to broadcast":         {ip(a4, netip.AddrFrom4([4]byte{255, 255, 255, 255}), ""), DropNotForwardable, nil},
		"to loopback":          {ip(a4, netip.MustParseAddr("127.0.0.1"), ""), DropNotForwardable, nil},
		"to loopback 6":        {ip(a6, netip.IPv6Loopback(), ""), DropNotForwardable, nil},
		"to mapped loopback":   {ip(a6, netip.MustParseAddr("::ffff:127.0.0.1"), ""), DropNotForwardable, nil},
		"from loopback":        {ip(netip.MustParseAddr("127.0.0.1"), gw4, ""), DropNotForwardable, nil},
		"from multicast":       {ip(group6, gw6, ""), DropNotForwardable, nil},
		"from link-local":      {ip(link6, gw6, ""), DropNotForwardable, nil},
		"another's source":     {ip(b4, gw4, "q"), DropSource, &icmpError{from: gw4, to: b4, kind: 3, code: 13}},
		"another's source 6":   {ip(b6, gw6, "q"), DropSource, &icmpError{from: gw6, to: b6, kind: 1, code: 5}},
		"the gateway's source": {ip(gw4, b4, "q"), DropSource, &icmpError{from: gw4, to: gw4, kind: 3, code: 13}},
		"nobody's source":      {ip(away6, gw6, "q"), DropSource, &icmpError{from: gw6, to: away6, kind: 1, code: 5}},
		"to nobody":            {ip(a4, away4, "q"), DropNoRoute, &icmpError{from: gw4, to: a4, kind: 3, code: 0}},
		"to nobody 6":          {ip(a6, away6, "q"), DropNoRoute, &icmpError{from: gw6, to: a6, kind: 1, code: 0}},
		"to itself":            {ip(a4, a4, "q"), DropNoRoute, &icmpError{from: gw4, to: a4, kind: 3, code: 0}},
		"no hops left":         {ipHops(a4, b4, 1, nil), DropHopLimit, &icmpError{from: gw4, to: a4, kind: 11, code: 0}},
		"no hops left 6":       {ipHops(a6, b6, 1, nil), DropHopLimit, &icmpError{from: gw6, to: a6, kind: 3, code: 0}},
		"no hops at all":       {ipHops(a6, b6, 0, nil), DropHopLimit, &icmpError{from: gw6, to: a6, kind: 3, code: 0}},
		"to one away":          {ip(a4, c4, "q"), DropNoSession, &icmpError{from: gw4, to: a4, kind: 3, code: 1}},
		"to one away 6":        {ip(a6, c6, "q"), DropNoSession, &icmpError{from: gw6, to: a6, kind: 1, code: 3}},
		"too big for b":        {long4, DropTooBig, &icmpError{from: gw4, to: a4, kind: 3, code: 4, mtu: 1300}},
		"too big for b 6":      {long6, DropTooBig, &icmpError{from: gw6, to: a6, kind: 2, code: 0, mtu: 1300}},
		"too big for a NIC":    {ip(a6, gw6, strings.Repeat("x", 65535-8)), DropTooBig, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gw := start(t, gatewaySnapshot(idA, idB, idC))
				a := gw.peerAt(idA)
				toB, b := newWire(10)
				toB.maxBytes = 1300
				gw.attach(idB, toB)
				a.send(t, c.packet)
				gw.expectDrops(map[Reason]uint64{c.reason: 1})
				if got := append(gw.toHost(), b.take()...); len(got) != 0 {
					t.Errorf("got through: %x", got)
				}
				told := a.take()
				if c.answer == nil {
					if len(told) != 0 {
						t.Errorf("a got %x", told)
					}
					return
				}
				want := *c.answer
				want.about = asQuoted(c.packet, c.reason)
				isICMP(t, told, want)
			})
		})
	}
}

// asQuoted is the packet as the error quotes it: forwarded, if it got as far as the carrier.
func asQuoted(p []byte, r Reason) []byte {
	p = bytes.Clone(p)
	switch {
	case r != DropTooBig && r != DropNoSession:
	case p[0]>>4 == 6:
		p[7]--
	default:
		p[8]--
		p[10], p[11] = 0, 0
		sum := ^onesSum(p[:20])
		p[10], p[11] = byte(sum>>8), byte(sum)
	}
	return p
}

// TestNobodyAnswersErrors: errors about errors would go round for ever (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
func TestNobodyAnswersErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		a := gw.peerAt(idA)
		a.send(t, ip(a4, away4, "q"))
		told := a.take()
		if len(told) != 1 {
			t.Fatalf("got %x", told)
		}
		back := told[0] // as if a's host had sent it to nobody
		copy(back[12:16], a4.AsSlice())
		copy(back[16:20], away4.AsSlice())
		a.send(t, back)
		if got := a.take(); len(got) != 0 {
			t.Errorf("an error was answered: %x", got)
		}
		gw.expectDrops(map[Reason]uint64{DropNoRoute: 2})
	})
}

// TestErrorsAreLimitedPerPeer: one peer cannot use up the errors of another.
func TestErrorsAreLimitedPerPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		a, b := gw.peerAt(idA), gw.peerAt(idB)
		for range 3 * icmpBurst {
			a.send(t, ip(a4, away4, "q"))
		}
		if got := a.take(); len(got) != icmpBurst {
			t.Errorf("a got %d errors, want %d", len(got), icmpBurst)
		}
		b.send(t, ip(b4, away4, "q"))
		gw.fromHost(ip(gw4, away4, "q"))
		if got, host := b.take(), gw.toHost(); len(got) != 1 || len(host) != 1 {
			t.Errorf("b got %d errors, the host %d", len(got), len(host))
		}
		time.Sleep(time.Second) // the bubble's
		for range 3 * icmpPerSecond {
			a.send(t, ip(a4, away4, "q"))
		}
		if got := a.take(); len(got) != icmpBurst {
			t.Errorf("a second later a got %d errors, want %d", len(got), icmpBurst)
		}
	})
}

// TestShortAbsenceIsNotReported: while a peer reconnects, senders keep what they have.
func TestShortAbsenceIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		ours, _ := newWire(10)
		detach := gw.attach(idA, ours)
		b := gw.peerAt(idB)
		_ = detach()
		time.Sleep(reconnectGrace - time.Nanosecond)
		b.send(t, ip(b4, a4, "q"))
		gw.fromHost(ip(gw4, a4, "q"))
		if got, host := b.take(), gw.toHost(); len(got) != 0 || len(host) != 0 {
			t.Errorf("told too early: %x, %x", got, host)
		}
		time.Sleep(time.Nanosecond)
		b.send(t, ip(b4, a4, "q"))
		gw.fromHost(ip(gw4, a4, "q"))
		isICMP(t, b.take(), icmpError{from: gw4, to: b4, kind: 3, code: 1, about: ipHops(b4, a4, 63, []byte("q"))})
		isICMP(t, gw.toHost(), icmpError{from: a4, to: gw4, kind: 3, code: 1, about: ip(gw4, a4, "q")})
		gw.expectDrops(map[Reason]uint64{DropNoSession: 4})
	})
}

// TestNoAddressNoErrors: an engine without an address of a family has nothing to send peers errors from.
func TestNoAddressNoErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := gatewaySnapshot(idA)
		s.NICAddresses = []netip.Addr{netip.MustParseAddr("::ffff:100.64.0.1")} // IPv4 in another guise
		gw := start(t, s)
		a := gw.peerAt(idA)
		a.send(t, ip(a6, away6, "q"))
		if got := a.take(); len(got) != 0 {
			t.Errorf("got %x", got)
		}
		a.send(t, ip(a4, away4, "q"))
		isICMP(t, a.take(), icmpError{from: gw4, to: a4, kind: 3, code: 0, about: ip(a4, away4, "q")})
	})
}

// faulty is a NIC whose next calls fail as told.
type faulty struct {
	*tun.Memory
	reads, writes chan error
}

func (f *faulty) ReadPackets(packets []tun.Packet, budgetBytes int) (int, error) {
	n, err := f.Memory.ReadPackets(packets, budgetBytes)
	select {
	case fault := <-f.reads:
		return n, fault
	default:
		return n, err
	}
}

func (f *faulty) WritePacket(pieces [][]byte, o tun.Offload) error {
	select {
	case fault := <-f.writes:
		return fault
	default:
		return f.Memory.WritePacket(pieces, o)
	}
}

func newFaulty() *faulty {
	return &faulty{Memory: tun.NewMemory("mem0"), reads: make(chan error, 1), writes: make(chan error, 1)}
}

func TestNICFaultsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nic := newFaulty()
		gw := &node{t: t, nic: nic.Memory}
		gw.engine, gw.stop = run(t, nic, gatewaySnapshot(idA))
		a := gw.peerAt(idA)
		nic.writes <- &tun.RefusedError{Err: errors.New("interface is down")}
		a.send(t, ip(a4, gw4, "lost"))
		a.send(t, ip(a4, gw4, "arrives"))
		if got := gw.toHost(); !equalPackets(got, ip(a4, gw4, "arrives")) {
			t.Errorf("the host got %x", got)
		}
		nic.reads <- tun.ErrUnreadable
		gw.fromHost(ip(gw4, a4, "good in spite of it"))
		gw.fromHost(ip(gw4, a4, "good"))
		if got := a.take(); !equalPackets(got, ip(gw4, a4, "good in spite of it"), ip(gw4, a4, "good")) {
			t.Errorf("the peer got %x", got)
		}
		gw.expectDrops(map[Reason]uint64{DropNICRefused: 1, DropNICUnreadable: 1})
	})
}

// TestSlowHost: what the host does not take is dropped and counted, and the carrier is emptied all the same.
func TestSlowHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		a := gw.peerAt(idA)
		const packets = 3000
		for range packets {
			a.send(t, ip(a4, gw4, "x"))
		}
		dropped := gw.drops()[DropQueueFull.String()]
		if got := len(gw.toHost()); dropped == 0 || got < nicQueuePackets || uint64(got)+dropped != packets {
			t.Errorf("%d arrived, %d dropped, of %d", got, dropped, packets)
		}
		gw.expectDrops(map[Reason]uint64{DropQueueFull: dropped})
	})
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range reasonCount {
		name := r.String()
		if name == "" || name == "unknown" || seen[name] || strings.ContainsAny(name, " -ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Errorf("reason %d is called %q", r, name)
		}
		seen[name] = true
	}
	if got := reasonCount.String(); got != "unknown" {
		t.Errorf("beyond the last: %q", got)
	}
	if got := New().Stats().Drops; len(got) != int(reasonCount) {
		t.Errorf("Stats lists %d of %d reasons", len(got), reasonCount)
	}
}
