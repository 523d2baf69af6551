package dataplane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

func TestAttachUnknownPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		ours, _ := newWire(1)
		for _, e := range []*Engine{gw.engine, New()} {
			if err := e.Attach(t.Context(), idB, ours); !errors.Is(err, ErrUnknownPeer) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestMakeBeforeBreak: the newest carrier sends, older ones go on receiving, and send again when the newest fails.
func TestMakeBeforeBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		first := gw.peerAt(idA)
		second, theirSecond := newWire(10)
		detach := gw.attach(idA, second)

		gw.fromHost(ip(gw4, a4, "1"))
		if old, now := first.take(), theirSecond.take(); len(old) != 0 || !equalPackets(now, ip(gw4, a4, "1")) {
			t.Errorf("the old carrier sent %x, the new one %x", old, now)
		}
		first.send(t, ip(a4, gw4, "old"))
		theirSecond.send(t, ip(a4, gw4, "new"))
		if got := gw.toHost(); !equalPackets(got, ip(a4, gw4, "old"), ip(a4, gw4, "new")) {
			t.Errorf("the host got %x", got)
		}

		if err := detach(); !errors.Is(err, context.Canceled) {
			t.Errorf("Attach: %v", err)
		}
		gw.fromHost(ip(gw4, a4, "2"))
		if old, now := first.take(), theirSecond.take(); len(now) != 0 || !equalPackets(old, ip(gw4, a4, "2")) {
			t.Errorf("the old carrier sent %x, the new one %x", old, now)
		}
		third := gw.peerAt(idA)
		fourth := gw.peerAt(idA)
		fourth.end()
		synctest.Wait()
		gw.fromHost(ip(gw4, a4, "3"))
		if old, newer := first.take(), third.take(); len(old) != 0 || !equalPackets(newer, ip(gw4, a4, "3")) {
			t.Errorf("the first carrier sent %x, the third %x", old, newer)
		}
		third.end()
		first.end()
		synctest.Wait()
		gw.fromHost(ip(gw4, a4, "4"))
		gw.expectDrops(map[Reason]uint64{DropNoSession: 1})
	})
}

// TestQueueIsHandedOver: what waits for a congested carrier goes out of the one that takes its place, in order, but for
// the packet that the old one has in hand.
func TestQueueIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		congested, theirs := newWire(0)
		gw.attach(idA, congested)
		const packets = 20
		var all [][]byte
		for i := range packets {
			all = append(all, ip(gw4, a4, fmt.Sprint(i)))
		}
		gw.fromHost(all...)
		second := gw.peerAt(idA)
		if got := second.take(); !equalPackets(got, all[1:]...) {
			t.Errorf("the second carrier sent %d packets: %x", len(got), got)
		}
		if got := theirs.take(); !equalPackets(got, all[0]) {
			t.Errorf("the first one had %x in hand", got)
		}
		gw.expectDrops(nil)
	})
}

// TestEndOfTheLastCarrier: what waits is dropped and counted, with the packet in hand; nothing gets stuck.
func TestEndOfTheLastCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		congested, _ := newWire(0)
		detach := gw.attach(idA, congested)
		for range 20 {
			gw.fromHost(ip(gw4, a4, "x"))
		}
		gw.expectDrops(nil)
		congested.end()
		synctest.Wait()
		if err := detach(); !errors.Is(err, errWire) {
			t.Errorf("Attach: %v", err)
		}
		gw.expectDrops(map[Reason]uint64{DropNoSession: 20})
		again := gw.peerAt(idA)
		gw.fromHost(ip(gw4, a4, "y"))
		if got := again.take(); !equalPackets(got, ip(gw4, a4, "y")) {
			t.Errorf("the next carrier sent %x", got)
		}
	})
}

// half is a carrier of two functions.
type half struct {
	send    func([]byte) error
	receive func(context.Context) ([]byte, error)
}

func (h half) SendPacket(p []byte) error { return h.send(p) }

func (half) MaxPacketBytes() int { return 1300 }

func (h half) ReceivePacket(ctx context.Context) ([]byte, error) { return h.receive(ctx) }

func untilDone(ctx context.Context) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestCarrierErrorsEndAttach(t *testing.T) {
	fault := errors.New("path is down")
	for name, c := range map[string]struct {
		carrier half
		want    string
	}{
		"send":           {half{func([]byte) error { return fault }, untilDone}, "send to peer: path is down"},
		"panic, send":    {half{func([]byte) error { panic("oops") }, untilDone}, "panic: oops"},
		"panic, receive": {half{nil, func(context.Context) ([]byte, error) { panic("oops") }}, "panic: oops"},
		"receive": {
			half{nil, func(context.Context) ([]byte, error) { return nil, fault }},
			"receive from peer: path is down",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gw := start(t, gatewaySnapshot(idA, idB))
				done := make(chan error, 1)
				go func() { done <- gw.engine.Attach(t.Context(), idA, c.carrier) }()
				// After this a carrier that cannot receive has ended, and one that cannot send waits for a packet.
				synctest.Wait()
				gw.fromHost(ip(gw4, a4, "x"))
				err := <-done
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if strings.HasPrefix(c.want, "panic") == errors.Is(err, fault) {
					t.Errorf("got %v", err)
				}
				gw.expectDrops(map[Reason]uint64{DropNoSession: 1})
				b := gw.peerAt(idB) // the engine goes on
				gw.fromHost(ip(gw4, b4, "y"))
				if got := b.take(); len(got) != 1 {
					t.Errorf("b got %x", got)
				}
			})
		})
	}
}

// TestDyingCarrierLosesItsTurnAtOnce: even while it hangs in SendPacket.
func TestDyingCarrierLosesItsTurnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		hang, fail := make(chan struct{}), make(chan struct{})
		ours := half{
			send: func([]byte) error { <-hang; return errWire },
			receive: func(ctx context.Context) ([]byte, error) {
				select {
				case <-fail:
					return nil, errWire
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
		}
		done := make(chan error, 1)
		go func() { done <- gw.engine.Attach(t.Context(), idA, ours) }()
		synctest.Wait()
		gw.fromHost(ip(gw4, a4, "in hand"), ip(gw4, a4, "waits"))
		close(fail)
		gw.expectDrops(map[Reason]uint64{DropNoSession: 1})
		gw.fromHost(ip(gw4, a4, "no session"))
		gw.expectDrops(map[Reason]uint64{DropNoSession: 2})
		close(hang)
		if err := <-done; !errors.Is(err, errWire) {
			t.Errorf("Attach: %v", err)
		}
		gw.expectDrops(map[Reason]uint64{DropNoSession: 3})
	})
}

// TestTooBigDoesNotEndTheCarrier, and the limit may change.
func TestTooBigDoesNotEndTheCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		ours, theirs := newWire(10)
		ours.maxBytes = 100
		gw.attach(idA, ours)
		long, short := ip(gw4, a4, strings.Repeat("x", 100)), ip(gw4, a4, "x")
		gw.fromHost(long, short)
		if got := theirs.take(); !equalPackets(got, short) {
			t.Errorf("got %x", got)
		}
		gw.expectDrops(map[Reason]uint64{DropTooBig: 1})
		isICMP(t, gw.toHost(), icmpError{from: a4, to: gw4, kind: 3, code: 4, mtu: 100, about: long})
	})
}

// TestLatecomers: what another goroutine had in its hands when the last carrier ended is dropped and counted too, on
// either side of the queue. The moments in which that happens are too short to be met from outside.
func TestLatecomers(t *testing.T) {
	e, a, _ := idle(t)
	a.carrier = half{send: func([]byte) error {
		t.Error("sent by a carrier that has been cut off")
		return nil
	}}
	if err := e.Apply(gatewaySnapshot(idB)); err != nil {
		t.Fatal(err)
	}
	s, b := e.newSender(), e.bufferOf(t, ip(gw4, a4, "routed just before"))
	s.stage(a.peer, b, 0)
	s.commit(0)
	out := carrierSender{e: e, a: a}
	if taken, err := out.send(ip(gw4, a4, "taken out just before")); taken || err != nil {
		t.Errorf("taken %v, %v", taken, err)
	}
	if got := e.Stats().Drops[DropNoSession.String()]; got != 2 || a.peer.waiting.Load() != 0 || len(s.active) != 0 {
		t.Errorf("%d dropped, %d left", got, a.peer.waiting.Load())
	}
}
