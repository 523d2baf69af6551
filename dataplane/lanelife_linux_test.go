package dataplane

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/dataplane/packet"
	"github.com/aethertunnel/aethertunnel/dataplane/path"
	"github.com/aethertunnel/aethertunnel/tun"
)

func TestNewLaneForUnknownPeer(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	s := newSecrets(t)
	l, err := gw.engine.NewLane(LaneConfig{Peer: idC, Conn: gw.conn, Params: s.params(0, s.ids.Next(0), true)})
	if l != nil || !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("got %v, %v", l, err)
	}
}

// TestLaneWaitsUntilItIsHeard: before a packet has come the other way packets go through the carrier.
func TestLaneWaitsUntilItIsHeard(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	theirs := gw.carrier(idA)
	o := newStranger(gw, idA, laneConfig{})
	o.end.Close()
	s := newSecrets(t)
	own := s.ids.Next(0)
	end := s.newEnd(gw, idA, keyschedule.Server, own, s.ids.Next(0), o.conn.LocalAddr(), laneConfig{})
	if err := end.Seal(0, s.key(0, keyschedule.Server)); err != nil {
		t.Fatal(err)
	}
	if gw.engine.Stats().Peers[idA].Lane != nil {
		t.Error("an unheard lane is shown as the way")
	}
	gw.inject(tun.Packet{Data: ip(gw4, a4, "by carrier")})
	if got := next(t, theirs.in); !equalPackets([][]byte{got}, ip(gw4, a4, "by carrier")) {
		t.Errorf("got %x", got)
	}
}

// TestRemovedPeerLosesItsLane: whether or not it is the way to the peer, it takes no packets and sends none any more.
func TestRemovedPeerLosesItsLane(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, o *stranger){
		"in use":  func(*testing.T, *stranger) {},
		"stopped": func(_ *testing.T, o *stranger) { o.end.SealStop() },
	} {
		t.Run(name, func(t *testing.T) {
			gw := startLanes(t, gatewaySnapshot(idA, idB), allOffloads, loopback4)
			o := newStranger(gw, idA, laneConfig{})
			prepare(t, o)
			if err := gw.engine.Apply(gatewaySnapshot(idB)); err != nil {
				t.Fatal(err)
			}
			if gw.engine.lanes.find(o.end.id) != gw.engine.lanes.ended {
				t.Error("its connection ID is still taken")
			}
			o.send(0, o.inContext0(ip(a4, gw4, "x")))
			await(t, "the packet to be passed on or dropped", func() bool {
				return len(gw.drops()) > 0
			})
			gw.inject(tun.Packet{Data: ip(gw4, a4, "x")})
			gw.expectDrops(map[Reason]uint64{DropNoRoute: 1, DropLaneEnded: 1})
			if p := next(t, gw.nic.Packets()); p.Data[9] != 1 {
				t.Errorf("the host got %x", p.Data)
			}
		})
	}
}

// TestLateLaneOfARemovedPeer: one that was being made while the peer was removed does not come to life.
func TestLateLaneOfARemovedPeer(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA, idB), allOffloads, loopback4)
	s := newSecrets(t)
	own := s.ids.Next(0)
	end := s.newEnd(gw, idA, keyschedule.Server, own, s.ids.Next(0), gw.conn.LocalAddr(), laneConfig{})
	if err := gw.engine.Apply(gatewaySnapshot(idB)); err != nil {
		t.Fatal(err)
	}
	late := s.ids.Next(0)
	end.Issue(late)
	for _, id := range []lane.ConnectionID{own, late} {
		if l := gw.engine.lanes.find(id); l != nil && l != gw.engine.lanes.ended {
			t.Errorf("%v is taken", id)
		}
	}
}

// TestCloseUnderLoad: every packet arrives, or is counted.
func TestCloseUnderLoad(t *testing.T) {
	for name, closing := range map[string]func(atGateway, atMember *laneEnd){
		"sender":   func(_, atMember *laneEnd) { atMember.Close() },
		"receiver": func(atGateway, _ *laneEnd) { atGateway.Close() },
		"stop":     func(_, atMember *laneEnd) { atMember.SealStop() },
	} {
		t.Run(name, func(t *testing.T) {
			gw, a, atGateway, atMember := pairOf(t, allOffloads, laneConfig{})
			await(t, "the lane's own packets to be over", func() bool {
				return atGateway.searched.Load() && atMember.searched.Load() && !atMember.hasControl.Load()
			})
			ownBefore := a.ownPackets(gateway)
			const packets = 4000
			var arrived atomic.Uint64
			ctx, cancel := context.WithCancel(context.Background())
			var hosts sync.WaitGroup
			hosts.Go(func() {
				for {
					select {
					case p := <-gw.nic.Packets():
						arrived.Add(uint64(len(segments(t, p))))
					case <-ctx.Done():
						return
					}
				}
			})
			for i := range packets {
				if i == packets/2 {
					go closing(atGateway, atMember)
				}
				a.inject(superPacket(udp4, a4, gw4, 1+i%100))
			}
			accounted := func() uint64 {
				quic := gw.conn.Stats()
				// What the member has no lane for any more is none of these packets.
				ofMember := a.dropped() - a.engine.Stats().Drops[DropLaneEnded.String()]
				return arrived.Load() + quic.QUICDatagrams + quic.QUICDropped + ofMember + gw.dropped()
			}
			await(t, "all packets to be accounted for", func() bool { return accounted() >= packets })
			cancel()
			hosts.Wait()
			// To the closed end a question of the other, whether it is alive, is dropped like any of these.
			got := accounted()
			if most := packets + a.ownPackets(gateway) - ownBefore; got > most {
				t.Errorf("%d accounted for, of %d", got, most)
			}
		})
	}
}

// ownPackets is how many packets the lane to a peer has sealed of its own accord.
func (n *laneNode) ownPackets(peer PeerID) uint64 {
	others := n.engine.Stats().Peers[peer].SentPackets
	return n.conn.Stats().SentDatagrams - others
}

// TestNoWayOut: what the host cannot send is counted by packets, and the lane goes on.
func TestNoWayOut(t *testing.T) {
	gw, a, _, atMember := pairOf(t, allOffloads, laneConfig{})
	good := atMember.way.Load()
	bad, err := a.conn.NewDestination(netip.MustParseAddrPort("255.255.255.255:9"), netip.Addr{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	// What the lane itself has to say at that moment is lost and counted as well. A packet that comes may move the lane
	// back to where it comes from, so it is sent astray until the loss shows.
	await(t, "the loss to be counted", func() bool {
		atMember.way.Store(&way{bad, good.id})
		a.inject(superPacket(tcp4, a4, gw4, 30*tcp4.bytes))
		return a.drops()[DropSend.String()] >= 30
	})
	atMember.way.Store(good)
	a.inject(superPacket(udp4, a4, gw4, 1))
	for next(t, gw.nic.Packets()).Data[9] != packet.ProtocolUDP { // some of the others may have found their way
	}
}

// TestIdleLaneFallsSilent: reports do not ask for answers, or two ends would never come to rest.
func TestIdleLaneFallsSilent(t *testing.T) {
	gw, a, atGateway, atMember := pairOf(t, allOffloads, laneConfig{})
	a.inject(superPacket(udp4, a4, gw4, 1))
	gw.host(1)
	rests := func(l *laneEnd) bool {
		l.path.mu.Lock()
		defer l.path.mu.Unlock()
		return l.path.next() == path.Never
	}
	for range 20 { // what has been said alone is answered by nothing that would have to be answered
		await(t, "both ends to rest", func() bool { return rests(atMember) && rests(atGateway) })
		atMember.say(controlPacket{frames: lane.AppendPathResponse(nil, lane.PathData{})})
		sealed := atMember.sealed.Load()
		await(t, "it to be sealed", func() bool { return atMember.sealed.Load() > sealed || !atMember.hasControl.Load() })
	}
	if !rests(atMember) {
		t.Error("the member waits for an answer to what asks for none")
	}
	for _, l := range []*laneEnd{atMember, atGateway} {
		await(t, "the lane to be silent", func() bool { return rests(l) && l.serving.CompareAndSwap(false, true) })
		l.path.keep(l.engine.now())
		if said := l.takeControl(); len(said) != 0 {
			t.Errorf("an idle lane that is looked at says %x", said[0].frames)
		}
		l.serving.Store(false)
	}
}
