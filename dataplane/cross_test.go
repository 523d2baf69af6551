package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// joined starts a gateway and the members a and b, each an engine of its own.
func joined(t *testing.T) (gw, a, b *node) {
	t.Helper()
	gw = start(t, gatewaySnapshot(idA, idB))
	a, b = start(t, memberSnapshot(a4, a6)), start(t, memberSnapshot(b4, b6))
	for id, member := range map[PeerID]*node{idA: a, idB: b} {
		x, y := newWire(100)
		gw.attach(id, x)
		member.attach(gateway, y)
	}
	return gw, a, b
}

func TestPacketsCrossBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw, a, _ := joined(t)
		up := [][]byte{ip(a4, gw4, "up"), ip(a6, gw6, "up, version 6")}
		down := [][]byte{ip(gw4, a4, "down"), ip(gw6, a6, "down, version 6"), ip(gw4, a4, "again")}
		a.fromHost(up...)
		gw.fromHost(down...)
		sameFlows(t, gw.toHost(), up)
		sameFlows(t, a.toHost(), down) // which flow comes first is the queue's choice
		want := PeerStats{
			ReceivedPackets: 2, ReceivedBytes: uint64(len(up[0]) + len(up[1])),
			SentPackets: 3, SentBytes: uint64(len(down[0]) + len(down[1]) + len(down[2])),
		}
		if got := gw.engine.Stats().Peers[idA]; got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
		if got := gw.engine.Stats().Peers[idB]; got != (PeerStats{}) {
			t.Errorf("the other member: counted %+v", got)
		}
		gw.expectDrops(nil)
		a.expectDrops(nil)
	})
}

// TestHubRoutesBetweenMembers: the gateway is a router between them, and its host has no part in it.
func TestHubRoutesBetweenMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw, a, b := joined(t)
		a.fromHost(ip(a4, b4, "hello"), ip(a6, b6, "hello"))
		b.fromHost(ipHops(b4, a4, 2, []byte("hi")))
		// Made anew with one hop less, so the checksum is one that was computed, not mended.
		want := [][]byte{ipHops(a4, b4, 63, []byte("hello")), ipHops(a6, b6, 63, []byte("hello"))}
		if got := b.toHost(); !equalPackets(got, want...) {
			t.Errorf("b got %x, want %x", got, want)
		}
		if got := a.toHost(); !equalPackets(got, ipHops(b4, a4, 1, []byte("hi"))) {
			t.Errorf("a got %x", got)
		}
		if got := gw.toHost(); len(got) != 0 {
			t.Errorf("the gateway's host got %x", got)
		}
		for _, n := range []*node{gw, a, b} {
			n.expectDrops(nil)
		}
	})
}

// TestHopLimitIsKeptElsewhere: on the way to and from the NIC the host's kernel is the router.
func TestHopLimitIsKeptElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw, a, _ := joined(t)
		a.fromHost(ipHops(a4, gw4, 1, nil), ipHops(a6, gw6, 1, nil))
		if got := gw.toHost(); !equalPackets(got, ipHops(a4, gw4, 1, nil), ipHops(a6, gw6, 1, nil)) {
			t.Errorf("got %x", got)
		}
	})
}

// TestOrderIsKept: of two flows at once each arrives in order, and what does not arrive was counted.
func TestOrderIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw, a, b := joined(t)
		const packets = 3000
		flows := []struct {
			from, to *node
			src, dst netip.Addr
			got      []string
		}{{from: a, to: b, src: a4, dst: b4}, {from: b, to: a, src: b6, dst: a6}}
		ctx, cancel := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		for i := range flows {
			f := &flows[i]
			go func() {
				for i := range packets {
					if err := f.from.nic.Inject(ip(f.src, f.dst, fmt.Sprintf("%04d", i))); err != nil {
						t.Error(err)
						return
					}
				}
			}()
			readers.Go(func() {
				for {
					select {
					case p := <-f.to.nic.Packets():
						f.got = append(f.got, string(p.Data[len(p.Data)-4:]))
					case <-ctx.Done():
						return
					}
				}
			})
		}
		synctest.Wait()
		cancel()
		readers.Wait()
		arrived := uint64(0)
		for _, f := range flows {
			arrived += uint64(len(f.got))
			if len(f.got) == 0 || !slices.IsSorted(f.got) || len(slices.Compact(slices.Clone(f.got))) != len(f.got) {
				t.Errorf("%v to %v: out of order, doubled or none: %v", f.src, f.dst, f.got)
			}
		}
		dropped := uint64(0)
		for _, n := range []*node{gw, a, b} {
			full := n.drops()[DropQueueFull.String()]
			n.expectDrops(map[Reason]uint64{DropQueueFull: full})
			dropped += full
		}
		if arrived+dropped != uint64(len(flows)*packets) {
			t.Errorf("%d arrived and %d were dropped, of %d", arrived, dropped, len(flows)*packets)
		}
	})
}
