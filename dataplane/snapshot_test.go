package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/aethertunnel/aethertunnel/tun"
)

func TestNothingPassesBeforeApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, Snapshot{})
		gw.fromHost(ip(gw4, a4, "x"), ip(gw6, a6, "x"))
		gw.expectDrops(map[Reason]uint64{DropNoRoute: 2})
	})
}

func TestApplyRefusesAndKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		a := gw.peerAt(idA)
		twice := gatewaySnapshot(idA, idB)
		twice.Peers[1].Prefixes = twice.Peers[0].Prefixes
		ours := gatewaySnapshot(idB)
		ours.Peers[0].Prefixes = hosts(gw4)
		invalid := gatewaySnapshot(idB)
		invalid.NICPrefixes = []netip.Prefix{{}}
		sources := gatewaySnapshot(idB)
		sources.NICSources = []netip.Prefix{{}}
		for name, s := range map[string]Snapshot{
			"one prefix, two peers": twice, "a peer with our address": ours,
			"invalid prefix": invalid, "invalid source": sources,
		} {
			if err := gw.engine.Apply(s); err == nil {
				t.Errorf("%s: applied", name)
			}
		}
		gw.fromHost(ip(gw4, a4, "still there"))
		if got := a.take(); len(got) != 1 {
			t.Errorf("got %x", got)
		}
		if _, known := gw.engine.Stats().Peers[idB]; known {
			t.Error("a peer of a refused snapshot is known")
		}
	})
}

// TestRemovedPeerPassesNothingMore: not what it sends, not what is sent to it, not what waited for it.
func TestRemovedPeerPassesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		congested, theirs := newWire(0)
		done := make(chan error, 2)
		attach := func(c Carrier) { done <- gw.engine.Attach(t.Context(), idA, c) }
		older, theirOlder := newWire(10)
		go attach(older)
		synctest.Wait()
		go attach(congested)
		b := gw.peerAt(idB)
		const waiting = 20
		gw.fromHost(ip(gw4, a4, "in hand"))
		for range waiting {
			gw.fromHost(ip(gw4, a4, "x"))
		}
		gw.expectDrops(nil)

		if err := gw.engine.Apply(gatewaySnapshot(idB)); err != nil {
			t.Fatal(err)
		}
		// At once means now: before any other goroutine has run.
		if got := gw.engine.Stats().Drops[DropNoSession.String()]; got < waiting {
			t.Errorf("of %d packets that waited %d were dropped", waiting, got)
		}
		theirs.take() // what was in hand; the carrier is free now
		synctest.Wait()
		theirOlder.end()
		theirs.end()
		for range 2 {
			if err := <-done; !errors.Is(err, ErrUnknownPeer) {
				t.Errorf("Attach: %v", err)
			}
		}
		if got := append(theirs.take(), theirOlder.take()...); len(got) != 0 {
			t.Errorf("a got %x", got)
		}
		b.send(t, ip(b4, a4, "x"))
		gw.fromHost(ip(gw4, a4, "x"))
		gw.expectDrops(map[Reason]uint64{DropNoSession: waiting, DropNoRoute: 2})
		if _, known := gw.engine.Stats().Peers[idA]; known {
			t.Error("the peer is still counted")
		}
		if err := gw.engine.Attach(t.Context(), idA, congested); !errors.Is(err, ErrUnknownPeer) {
			t.Errorf("Attach after removal: %v", err)
		}
	})
}

// TestRemovedPeerIsNotHeard: whatever its carriers bring after Apply has returned is dropped, and not answered, and its
// carrier is done with, even one that never looks at its context because there is always another packet.
func TestRemovedPeerIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		var sent atomic.Uint64
		brought, done := make(chan []byte), make(chan error, 1)
		go func() {
			done <- gw.engine.Attach(t.Context(), idA, half{
				send:    func([]byte) error { sent.Add(1); return nil },
				receive: func(context.Context) ([]byte, error) { return <-brought, nil },
			})
		}()
		synctest.Wait()
		gw.engine.mu.Lock()
		a := gw.engine.peers[idA].attachments[0]
		gw.engine.mu.Unlock()
		if err := gw.engine.Apply(gatewaySnapshot(idB)); err != nil {
			t.Fatal(err)
		}
		gw.engine.fromCarrier(a.peer, ip(a4, gw4, "as if its goroutine had been held up for so long"))
		gw.expectDrops(map[Reason]uint64{DropSource: 1})
		brought <- ip(a4, gw4, "late")
		if err := <-done; !errors.Is(err, ErrUnknownPeer) {
			t.Errorf("Attach: %v", err)
		}
		gw.expectDrops(map[Reason]uint64{DropSource: 1, DropNoSession: 1})
		if got := gw.toHost(); len(got) != 0 || sent.Load() != 0 {
			t.Errorf("the host got %x, the peer %d packets", got, sent.Load())
		}
	})
}

// TestAddressMovesToAnotherPeer: from one snapshot to the next, with both peers connected.
func TestAddressMovesToAnotherPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan := netip.MustParsePrefix("10.1.0.0/16")
		in := netip.MustParseAddr("10.1.2.3")
		with := func(owner int) Snapshot {
			s := gatewaySnapshot(idA, idB)
			s.Peers[owner].Prefixes = append(s.Peers[owner].Prefixes, lan)
			return s
		}
		gw := start(t, with(0))
		a, b := gw.peerAt(idA), gw.peerAt(idB)
		gw.fromHost(ip(gw4, in, "x"))
		b.send(t, ip(in, gw4, "x"))
		if gotA, gotB := a.take(), b.take(); len(gotA) != 1 || len(gotB) != 1 || gotB[0][9] != 1 {
			t.Errorf("a got %x, b %x", gotA, gotB)
		}
		gw.expectDrops(map[Reason]uint64{DropSource: 1})
		if err := gw.engine.Apply(with(1)); err != nil {
			t.Fatal(err)
		}
		gw.fromHost(ip(gw4, in, "x"))
		b.send(t, ip(in, gw4, "x"))
		if gotA, gotB, host := a.take(), b.take(), gw.toHost(); len(gotA) != 0 || len(gotB) != 1 || len(host) != 1 {
			t.Errorf("a got %x, b %x, the host %x", gotA, gotB, host)
		}
		gw.expectDrops(map[Reason]uint64{DropSource: 1})
	})
}

// TestSnapshotsUnderLoad swaps snapshots while packets fly in every direction and peers come and go. It is for the race
// detector; what it checks is that each packet ends somewhere, once.
func TestSnapshotsUnderLoad(t *testing.T) {
	silent := func(ids ...PeerID) Snapshot {
		s := gatewaySnapshot(ids...)
		s.NICAddresses = nil // so that peers are sent no errors, which would count as arrivals
		return s
	}
	nic := tun.NewMemory("mem0")
	e, stop := run(t, nic, silent(idA, idB))
	var wires []*wire
	ctx, cancel := context.WithCancel(t.Context())
	var background, senders sync.WaitGroup
	var arrived atomic.Uint64
	wireOf := func(id PeerID) *wire {
		ours, theirs := newWire(64)
		wires = append(wires, ours)
		background.Go(func() {
			for ctx.Err() == nil { // attached anew whenever a snapshot has removed the peer
				_ = e.Attach(ctx, id, ours)
			}
		})
		background.Go(func() {
			for {
				select {
				case <-theirs.in:
					arrived.Add(1)
				case <-ctx.Done():
					return
				}
			}
		})
		return theirs
	}
	a, b := wireOf(idA), wireOf(idB)
	wireOf(idA) // a second one
	background.Go(func() {
		for {
			select {
			case p := <-nic.Packets():
				if p.Data[9] == 17 { // the host is told of what was dropped, which is no arrival
					arrived.Add(1)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	snapshots := []Snapshot{silent(idA, idB), silent(idA), silent(idB), silent(idA, idB, idC)}
	background.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := e.Apply(snapshots[i%len(snapshots)]); err != nil {
				t.Error(err)
			}
			e.Stats()
		}
	})
	const each = 5000
	for _, send := range []func() error{
		func() error { return nic.Inject(ip(gw4, a4, "x")) },
		func() error { return nic.Inject(ip(gw4, b4, "x")) },
		func() error { return a.SendPacket(ip(a4, b4, "x")) },
		func() error { return b.SendPacket(ip(b4, gw4, "x")) },
	} {
		senders.Go(func() {
			for range each {
				if err := send(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
	// All is in; now wait until all is out.
	const total = 4 * each
	accounted := func() uint64 {
		n := arrived.Load()
		for _, dropped := range e.Stats().Drops {
			n += dropped
		}
		return n
	}
	for accounted() < total && !t.Failed() {
		runtime.Gosched()
	}
	cancel()
	for _, w := range wires {
		w.end()
	}
	background.Wait()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := accounted(); got != total {
		t.Errorf("%d packets ended, of %d: %d arrived, dropped %v", got, total, arrived.Load(), e.Stats().Drops)
	}
}

// TestStatsAreOfNow: counters begin anew with a peer that comes back.
func TestStatsAreOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		a := gw.peerAt(idA)
		a.send(t, ip(a4, gw4, "x"))
		want := uint64(binary.BigEndian.Uint16(ip(a4, gw4, "x")[2:]))
		if got := gw.engine.Stats().Peers[idA]; got.ReceivedPackets != 1 || got.ReceivedBytes != want {
			t.Errorf("counted %+v", got)
		}
		for _, s := range []Snapshot{gatewaySnapshot(), gatewaySnapshot(idA)} {
			if err := gw.engine.Apply(s); err != nil {
				t.Fatal(err)
			}
		}
		if got := gw.engine.Stats().Peers[idA]; got != (PeerStats{}) {
			t.Errorf("counted %+v", got)
		}
	})
}
