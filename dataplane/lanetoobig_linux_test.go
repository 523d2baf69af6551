package dataplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/aethertunnel/aethertunnel/tun"
)

// TestLaneTooBig: what the path does not carry is answered with what it does, once for the whole super-packet.
func TestLaneTooBig(t *testing.T) {
	const mtu = testPacketBytes - innerOverheadBytes
	long := func(k kind, bytes int) kind { k.bytes = bytes; return k }
	for name, c := range map[string]struct {
		packet tun.Packet
		fits   bool
		want   icmpError
	}{
		"fits 4":       {superPacket(long(udp4, mtu-28), gw4, a4, mtu-28), true, icmpError{}},
		"fits 6":       {superPacket(long(udp4, mtu-48), gw6, a6, mtu-48), true, icmpError{}},
		"4":            {superPacket(long(udp4, 2000), gw4, a4, mtu-27), false, icmpError{from: a4, to: gw4, kind: 3, code: 4, mtu: mtu}},
		"6":            {superPacket(long(udp4, 2000), gw6, a6, mtu-47), false, icmpError{from: a6, to: gw6, kind: 2, mtu: mtu}},
		"segments 4":   {superPacket(long(tcp4, mtu-51), gw4, a4, 9000), false, icmpError{from: a4, to: gw4, kind: 3, code: 4, mtu: mtu}},
		"segments 6":   {superPacket(long(tcp6, mtu-71), gw6, a6, 60000), false, icmpError{from: a6, to: gw6, kind: 2, mtu: mtu}},
		"segments fit": {superPacket(long(tcp6, mtu-72), gw6, a6, 60000), true, icmpError{}},
	} {
		t.Run(name, func(t *testing.T) {
			gw, a, _, _ := pairOf(t, allOffloads, laneConfig{})
			gw.inject(c.packet)
			if c.fits {
				want := segments(t, c.packet)
				got, _ := a.host(len(want))
				sameFlows(t, got, want)
				gw.expectDrops(nil)
				return
			}
			c.want.about = c.packet.Data
			isICMP(t, [][]byte{next(t, gw.nic.Packets()).Data}, c.want)
			gw.expectDrops(map[Reason]uint64{DropTooBig: 1})
			if got := gw.engine.Stats().Peers[idA].Lane.MaxPacketBytes; got != mtu {
				t.Errorf("status shows %d", got)
			}
		})
	}
}

// TestHubTooBig: the member whose packet does not fit another member's lane is told.
func TestHubTooBig(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA, idB), allOffloads, loopback4)
	a := newStranger(gw, idA, laneConfig{})
	newStranger(gw, idB, laneConfig{packetBytes: 1360})
	const mtu = 1360 - innerOverheadBytes
	for _, way := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
		p := superPacket(kind{udp: true, bytes: 1400, port: 9, ttl: 9}, way[0], way[1], mtu)
		whole := segments(t, p)[0]
		a.send(0, a.inContext0(whole))
		want := icmpError{from: gw4, to: a4, kind: 3, code: 4, mtu: mtu, about: oneHopLess(tun.Packet{Data: whole}).Data}
		if way[0].Is6() {
			want.from, want.to, want.kind, want.code = gw6, a6, 2, 0
		}
		isICMP(t, [][]byte{a.receive(1)[0].Payload}, want)
	}
	gw.expectDrops(map[Reason]uint64{DropTooBig: 2})
}

// TestLinkRefusesLongPackets: what the first link does not carry is counted, and later ones are answered.
func TestLinkRefusesLongPackets(t *testing.T) {
	inNetwork(t, func(context.Context) error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetMTU(lo, 1500), netlink.LinkSetUp(lo)); err != nil {
			return err
		}
		nic := tun.NewMemoryWithOffloads("mem0", allOffloads)
		gw := startLanesOn(t, gatewaySnapshot(idA), nic, openConn(t, loopback4))
		gw.nic = nic
		o := newStranger(gw, idA, laneConfig{packetBytes: 2000})
		const least = 1500 - 28 + 1 - innerOverheadBytes // the shortest inner packet that the link does not carry
		k := kind{udp: true, bytes: 2000, port: 1, ttl: 64}
		p := superPacket(k, gw4, a4, least-28)
		gw.inject(p)
		await(t, "the loss to be counted", func() bool { return gw.drops()[DropSend.String()] > 0 })
		await(t, "a shorter limit", func() bool { return gw.engine.Stats().Peers[idA].Lane.MaxPacketBytes < least })
		gw.inject(p)
		told := next(t, gw.nic.Packets()).Data
		fit := int(binary.BigEndian.Uint16(told[26:]))
		if fit >= least {
			t.Errorf("told that %d fit", fit)
		}
		isICMP(t, [][]byte{told}, icmpError{from: a4, to: gw4, kind: 3, code: 4, mtu: fit, about: p.Data})
		if gw.drops()[DropTooBig.String()] == 0 { // the first too, where a probe has met the limit before it
			t.Error("not counted as too big")
		}
		fit = gw.engine.Stats().Peers[idA].Lane.MaxPacketBytes // more may have been found by now
		fits := superPacket(k, gw4, a4, fit-28)
		gw.inject(fits)
		got := o.receive(1)[0].Payload
		complete(got, 20, 6)
		if !bytes.Equal(got, segments(t, fits)[0]) {
			t.Errorf("got %x", got)
		}
		return nil
	})
}
