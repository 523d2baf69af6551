package dataplane

import (
	"fmt"
	"testing"
	"testing/synctest"
)

// flood lets the host send packets to a until somebody makes it wait; the count says how many it has got rid of.
func (n *node) flood(packets int) (sent *int, done chan struct{}) {
	sent, done = new(int), make(chan struct{})
	go func() {
		defer close(done)
		for i := range packets {
			if n.nic.Inject(ip(gw4, a4, fmt.Sprintf("%04d", i))) != nil {
				return
			}
			*sent++
		}
	}()
	synctest.Wait()
	return sent, done
}

// TestSinglePeerMakesTheHostWait: congestion reaches the sender as a full NIC queue, and nothing is lost.
func TestSinglePeerMakesTheHostWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		congested, theirs := newWire(0)
		gw.attach(idA, congested)
		const packets = 2000
		sent, done := gw.flood(packets)
		if *sent == packets {
			t.Fatal("the host was not held up")
		}
		gw.expectDrops(nil)
		for i := range packets {
			want := fmt.Sprintf("%04d", i)
			if p := <-theirs.in; string(p[len(p)-4:]) != want {
				t.Fatalf("packet %s came as %s", want, p[len(p)-4:])
			}
		}
		<-done
		gw.expectDrops(nil)
	})
}

// TestSeveralPeersDoNotWaitForOne: the queue of the slow one overflows, the other gets everything.
func TestSeveralPeersDoNotWaitForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA, idB))
		congested, theirs := newWire(0)
		gw.attach(idA, congested)
		b := gw.peerAt(idB)
		const packets = 500
		sent, _ := gw.flood(packets)
		if *sent != packets {
			t.Errorf("the host was held up after %d packets", *sent)
		}
		gw.fromHost(ip(gw4, b4, "x"))
		if got := b.take(); len(got) != 1 {
			t.Errorf("b got %x", got)
		}
		const kept = 1 + peerQueuePackets // in hand, and waiting
		gw.expectDrops(map[Reason]uint64{DropQueueFull: packets - kept})
		if got := theirs.take(); len(got) != kept || string(got[kept-1][28:]) != fmt.Sprintf("%04d", kept-1) {
			t.Errorf("a got %d packets, want the first %d", len(got), kept)
		}
		// From one member to another it is the same.
		for range peerQueuePackets + 11 {
			b.send(t, ip(b4, a4, "x"))
		}
		gw.expectDrops(map[Reason]uint64{DropQueueFull: packets - kept + 10})
		if got := b.take(); len(got) != 0 {
			t.Errorf("congestion was answered: %x", got)
		}
	})
}

// TestWaitingEnds: a host that waits for a single congested peer goes on when waiting has become pointless.
func TestWaitingEnds(t *testing.T) {
	const packets, kept = 2000, 1 + peerQueuePackets
	for name, c := range map[string]struct {
		end   func(t *testing.T, gw *node, congested *wire)
		drops map[Reason]uint64
	}{
		"a second peer": {
			func(t *testing.T, gw *node, _ *wire) {
				t.Helper()
				if err := gw.engine.Apply(gatewaySnapshot(idA, idB)); err != nil {
					t.Fatal(err)
				}
			},
			map[Reason]uint64{DropQueueFull: packets - kept},
		},
		"the carrier's end": {
			func(_ *testing.T, _ *node, congested *wire) { congested.end() },
			map[Reason]uint64{DropNoSession: packets},
		},
		"the peer's removal": {
			func(t *testing.T, gw *node, congested *wire) {
				t.Helper()
				if err := gw.engine.Apply(gatewaySnapshot()); err != nil {
					t.Fatal(err)
				}
				congested.end()
			},
			// Some go by the old snapshot, in which the peer has no session any more, the rest by the new one.
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gw := start(t, gatewaySnapshot(idA))
				congested, _ := newWire(0)
				gw.attach(idA, congested)
				sent, done := gw.flood(packets)
				if *sent == packets {
					t.Fatal("the host was not held up")
				}
				c.end(t, gw, congested)
				<-done
				if c.drops != nil {
					gw.expectDrops(c.drops)
					return
				}
				d := gw.drops()
				noRoute, noSession := d[DropNoRoute.String()], d[DropNoSession.String()]
				// One may have met the full queue an instant before.
				if full := d[DropQueueFull.String()]; full > 1 || noRoute+noSession+full != packets {
					t.Errorf("dropped %v", d)
				}
			})
		})
	}
}

// TestRunEndsWhileTheHostWaits: so does the end of everything.
func TestRunEndsWhileTheHostWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := start(t, gatewaySnapshot(idA))
		congested, _ := newWire(0)
		gw.attach(idA, congested)
		_, done := gw.flood(2000)
		if err := gw.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		<-done
		congested.end()
	})
}
