package dataplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
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

// TestLaneNeedsKeysInOrder: no sealing before opening, no key of another suite, no epoch left out.
func TestLaneNeedsKeysInOrder(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	s := newSecrets(t)
	to, err := gw.conn.NewDestination(gw.conn.LocalAddr(), netip.Addr{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := gw.engine.NewLane(LaneConfig{
		Peer: idA, Conn: gw.conn, To: to, Params: s.params(keyschedule.Server, s.ids.Next(0), true), PacketBytes: 1400,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Seal(0, s.key(0, keyschedule.Server)); !errors.Is(err, ErrNoKeys) {
		t.Errorf("Seal without keys: %v", err)
	}
	if err := l.Keep(0); !errors.Is(err, ErrNoKeys) {
		t.Errorf("Keep without keys: %v", err)
	}
	other := *s
	other.suite = aead.ChaCha20Poly1305
	if err := l.Install(0, other.key(0, keyschedule.Client), nil); !errors.Is(err, lane.ErrKeySuite) {
		t.Errorf("Install of another suite: %v", err)
	}
	if err := l.Install(0, s.key(0, keyschedule.Client), nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Seal(0, other.key(0, keyschedule.Server)); !errors.Is(err, lane.ErrKeySuite) {
		t.Errorf("Seal with another suite: %v", err)
	}
	s.ratchet()
	s.ratchet()
	if err := l.Install(2, s.key(2, keyschedule.Client), nil); !errors.Is(err, lane.ErrKeyEpoch) {
		t.Errorf("Install of epoch 2 after 0: %v", err)
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

// TestLaneRatchet: keys change under traffic, client first, and nothing is lost.
func TestLaneRatchet(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	a := startLanes(t, memberSnapshot(a4, a6), allOffloads, loopback4)
	client, server, s := connectLanes(a, gw, gateway, idA, laneConfig{})
	at := uint32(0)
	both := func() {
		up, down := superPacketAt(tcp4, a4, gw4, at, 30_000), superPacketAt(tcp4, gw4, a4, at, 30_000)
		at += 30_000
		a.inject(up)
		gw.inject(down)
		want := segments(t, up)
		got, _ := gw.host(len(want))
		sameFlows(t, got, want)
		want = segments(t, down)
		got, _ = a.host(len(want))
		sameFlows(t, got, want)
	}
	epochs := func() (uint32, uint32) {
		var of [2]uint32
		for i, end := range []*laneEnd{client, server} {
			await(t, "the sealer", func() bool { return end.serving.CompareAndSwap(false, true) })
			of[i] = end.sealer.Load().Epoch()
			end.serving.Store(false)
		}
		return of[0], of[1]
	}
	both()
	for want := uint32(1); want <= 3; want++ {
		epoch := s.ratchet()
		if err := server.Install(epoch, s.key(epoch, keyschedule.Client), s.key(epoch, keyschedule.Server)); err != nil {
			t.Fatal(err)
		}
		both()
		if c, s := epochs(); c != want-1 || s != want-1 {
			t.Fatalf("epochs %d and %d before the client has begun %d", c, s, want)
		}
		if err := client.Install(epoch, s.key(epoch, keyschedule.Server), nil); err != nil {
			t.Fatal(err)
		}
		if err := client.Seal(epoch, s.key(epoch, keyschedule.Client)); err != nil {
			t.Fatal(err)
		}
		client.Ping()
		if told := next(t, server.opened); told != want {
			t.Fatalf("the server was told of epoch %d", told)
		}
		server.Ping()
		if told := next(t, client.opened); told != want {
			t.Fatalf("the client was told of epoch %d", told)
		}
		both()
		if c, s := epochs(); c != want || s != want {
			t.Fatalf("epochs %d and %d, want %d", c, s, want)
		}
		client.Expire()
		server.Expire()
	}
	gw.expectDrops(nil)
	a.expectDrops(nil)
}

// setSealer replaces the lane's sealer by one that has come so far.
func (end *laneEnd) setSealer(t *testing.T, s *secrets, side keyschedule.Role, next uint64) {
	t.Helper()
	sealer, err := lane.NewSealer(lane.SealerConfig{
		Keys: lane.Keys{Key: s.key(0, side)}, Header: end.params.HeaderSeal, ID: end.params.FirstPeerID.ID,
		MaxPacketBytes: end.params.SendBytes, FirstNumber: next,
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the sealer", func() bool { return end.serving.CompareAndSwap(false, true) })
	end.sealer.Store(sealer)
	end.serving.Store(false)
}

// TestKeyLimit: a key that may seal no more seals no more, every packet is counted, and with the next key it goes on.
func TestKeyLimit(t *testing.T) {
	s := newStages(t, laneConfig{})
	const left = 3
	s.lane.setSealer(t, s.key, keyschedule.Client, aead.MaxPackets-left)
	nic := tun.NewMemoryWithOffloads("mem0", allOffloads)
	s.to.nic = nic
	s.to.engine.nic.Load().Device = nic
	for i := range 2 * left {
		s.read(superPacket(udp4, a4, gw4, 10+i))
	}
	s.send()
	s.take(left)
	got, _ := s.to.host(left)
	for i, p := range got {
		if !equalPackets([][]byte{p}, segments(t, superPacket(udp4, a4, gw4, 10+i))[0]) {
			t.Errorf("packet %d is %x", i, p)
		}
	}
	s.from.expectDrops(map[Reason]uint64{DropLaneKey: left})
	epoch := s.key.ratchet()
	if err := s.far.Install(epoch, s.key.key(epoch, keyschedule.Client), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.lane.Seal(epoch, s.key.key(epoch, keyschedule.Client)); err != nil {
		t.Fatal(err)
	}
	s.read(superPacket(udp4, a4, gw4, 100))
	s.send()
	s.take(1)
	s.to.host(1)
	s.to.expectDrops(nil)
}

// TestKeyLimitCountsSegments: those of a super-packet that the key does not reach are counted one by one.
func TestKeyLimitCountsSegments(t *testing.T) {
	s := newStages(t, laneConfig{})
	const left, all = 3, 10
	s.lane.setSealer(t, s.key, keyschedule.Client, aead.MaxPackets-left)
	s.read(superPacket(tcp4, a4, gw4, all*tcp4.bytes))
	s.send()
	if got := s.from.drops()[DropLaneKey.String()]; got != all-left {
		t.Errorf("%d counted, want %d", got, all-left)
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
			if gw.engine.lanes.find(o.end.id) != nil {
				t.Error("its connection ID is still taken")
			}
			o.send(0, o.inContext0(ip(a4, gw4, "x")))
			await(t, "the packet to be passed on or dropped", func() bool {
				return gw.conn.Stats().QUICDatagrams == 1 || len(gw.drops()) > 0
			})
			gw.inject(tun.Packet{Data: ip(gw4, a4, "x")})
			gw.expectDrops(map[Reason]uint64{DropNoRoute: 1})
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
		if gw.engine.lanes.find(id) != nil {
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
				return arrived.Load() + quic.QUICDatagrams + quic.QUICDropped + a.dropped() + gw.dropped()
			}
			await(t, "all packets to be accounted for", func() bool { return accounted() >= packets })
			cancel()
			hosts.Wait()
			if got := accounted(); got != packets {
				t.Errorf("%d accounted for, of %d", got, packets)
			}
		})
	}
}

// sendNumbers puts numbered packets of one flow on their way.
func (n *laneNode) sendNumbers(from, to int) {
	for i := from; i < to; i++ {
		p := superPacket(udp4, a4, gw4, 4)
		binary.BigEndian.PutUint32(p.Data[28:], uint32(i))
		n.inject(p)
	}
}

func (n *laneNode) numbers(count int) (all []int) {
	n.t.Helper()
	for len(all) < count {
		for _, p := range segments(n.t, next(n.t, n.nic.Packets())) {
			all = append(all, int(binary.BigEndian.Uint32(p[28:])))
		}
	}
	return all
}

func isRow(all []int, from int) bool {
	for i, n := range all {
		if n != from+i {
			return false
		}
	}
	return true
}

// TestLaneTakesOverAndGivesBack between bursts: with nothing on the way nothing is lost or reordered.
func TestLaneTakesOverAndGivesBack(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	a := startLanes(t, memberSnapshot(a4, a6), allOffloads, loopback4)
	x, y := newWire(0)
	gw.attach(idA, x)
	a.attach(gateway, y)
	const burst = 200
	at := 0
	burstBy := func(byLane bool, what string) {
		t.Helper()
		before := gw.conn.Stats().ReceivedDatagrams
		a.sendNumbers(at, at+burst)
		if got := gw.numbers(burst); !isRow(got, at) {
			t.Errorf("%s: lost or reordered: %v", what, got)
		}
		at += burst
		if used := gw.conn.Stats().ReceivedDatagrams-before >= burst; used != byLane {
			t.Errorf("%s: lane used: %v", what, used)
		}
		if shown := a.engine.Stats().Peers[gateway].Lane != nil; shown != byLane {
			t.Errorf("%s: lane shown: %v", what, shown)
		}
	}
	burstBy(false, "carrier")
	client, server, s := connectLanes(a, gw, gateway, idA, laneConfig{})
	burstBy(true, "lane")
	client.SealStop()
	burstBy(false, "stopped")
	if err := client.Seal(0, s.key(0, keyschedule.Client)); err != nil {
		t.Fatal(err)
	}
	burstBy(true, "sealing again")
	client.Close()
	server.Close()
	burstBy(false, "closed")
	connectLanes(a, gw, gateway, idA, laneConfig{})
	burstBy(true, "another lane")
	connectLanes(a, gw, gateway, idA, laneConfig{})
	burstBy(true, "a third one in its place")
	gw.expectDrops(nil)
	a.expectDrops(nil)
}

// TestHandOverUnderLoad: while the way changes nothing is lost or doubled. What is on the old way may be overtaken, but
// each way keeps its order.
func TestHandOverUnderLoad(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	a := startLanes(t, memberSnapshot(a4, a6), allOffloads, loopback4)
	x, y := newWire(0)
	gw.attach(idA, x)
	a.attach(gateway, y)
	const packets, switches, underWay = 6000, 6, 100
	var arrived atomic.Int64
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range packets {
			for int64(i)-arrived.Load() > underWay && !t.Failed() { // so few that no queue overflows
				runtime.Gosched()
			}
			a.sendNumbers(i, i+1)
		}
	}()
	switched := make(chan struct{})
	at := make(chan int, switches)
	go func() {
		defer close(switched)
		var client *laneEnd
		for i := range switches {
			<-at
			if i%2 == 0 {
				client, _, _ = connectLanes(a, gw, gateway, idA, laneConfig{})
			} else {
				client.Close()
			}
		}
	}()
	got := make([]int, 0, packets)
	for len(got) < packets {
		got = append(got, gw.numbers(1)...)
		arrived.Store(int64(len(got)))
		if len(got)%(packets/(switches+1)) == 0 {
			select {
			case at <- len(got):
			default:
			}
		}
	}
	<-sent
	close(at)
	<-switched
	var late []int
	highest := -1
	for _, n := range got {
		if n > highest {
			highest = n
		} else {
			late = append(late, n)
		}
	}
	if len(late) > switches*underWay || !slices.IsSorted(late) {
		t.Errorf("%d of %d overtaken, in order: %v", len(late), packets, slices.IsSorted(late))
	}
	slices.Sort(got)
	if !isRow(got, 0) {
		t.Error("lost or doubled")
	}
	gw.expectDrops(nil)
	a.expectDrops(nil)
}

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

// TestNoWayOut: what the host cannot send is counted by packets, and the lane goes on.
func TestNoWayOut(t *testing.T) {
	gw, a, _, atMember := pairOf(t, allOffloads, laneConfig{})
	good := atMember.to.Load()
	bad, err := a.conn.NewDestination(netip.MustParseAddrPort("255.255.255.255:9"), netip.Addr{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	// What the lane itself has to say at that moment is lost and counted as well. A packet that comes may move the lane
	// back to where it comes from, so it is sent astray until the loss shows.
	await(t, "the loss to be counted", func() bool {
		atMember.to.Store(bad)
		a.inject(superPacket(tcp4, a4, gw4, 30*tcp4.bytes))
		return a.drops()[DropSend.String()] >= 30
	})
	atMember.to.Store(good)
	a.inject(superPacket(udp4, a4, gw4, 1))
	for next(t, gw.nic.Packets()).Data[9] != packet.ProtocolUDP { // some of the others may have found their way
	}
}

// exclusive is a NIC that sees to the rule of Device: writing has one caller at a time.
type exclusive struct {
	*tun.Memory
	writing  atomic.Int32
	violated atomic.Bool
}

func (n *exclusive) WritePacket(pieces [][]byte, o tun.Offload) error {
	if n.writing.Add(1) != 1 {
		n.violated.Store(true)
	}
	defer n.writing.Add(-1)
	runtime.Gosched()
	return n.Memory.WritePacket(pieces, o)
}

// TestOneWriterAtATime: lanes and carriers bring packets for the NIC at the same time, but it is written by one.
func TestOneWriterAtATime(t *testing.T) {
	nic := &exclusive{Memory: tun.NewMemoryWithOffloads("mem0", allOffloads)}
	gw := startLanesOn(t, gatewaySnapshot(idA, idB), nic, openConn(t, loopback4))
	a := startLanes(t, memberSnapshot(a4, a6), allOffloads, loopback4)
	connectLanes(a, gw, gateway, idA, laneConfig{})
	theirs := gw.carrier(idB)
	const each = 2000
	var senders sync.WaitGroup
	senders.Go(func() {
		for i := range each {
			a.inject(superPacket(udp4, a4, gw4, 1+i%50))
		}
	})
	senders.Go(func() {
		for range each {
			if err := theirs.SendPacket(ip(b4, gw4, "x")); err != nil {
				t.Error(err)
			}
		}
	})
	arrived := uint64(0)
	await(t, "all packets to arrive or be dropped", func() bool {
		select {
		case p := <-nic.Packets():
			arrived += uint64(len(segments(t, p)))
		default:
		}
		return arrived+a.dropped()+gw.dropped() == 2*each
	})
	senders.Wait()
	if nic.violated.Load() {
		t.Error("two at a time")
	}
}

// TestSeveralReceivers: two sockets bring packets to one NIC.
func TestSeveralReceivers(t *testing.T) {
	nic := &exclusive{Memory: tun.NewMemoryWithOffloads("mem0", allOffloads)}
	gw := startLanesOn(t, gatewaySnapshot(idA, idB), nic, openConn(t, loopback4))
	second := openConn(t, loopback4)
	done := make(chan error, 1)
	go func() { done <- gw.engine.Receive(context.Background(), second) }()
	defer func() {
		if err := errors.Join(second.Close(), <-done); err != nil {
			t.Error(err)
		}
	}()
	other := *gw
	other.conn = second
	a := startLanes(t, memberSnapshot(a4, a6), allOffloads, loopback4)
	b := startLanes(t, memberSnapshot(b4, b6), allOffloads, loopback4)
	connectLanes(a, gw, gateway, idA, laneConfig{})
	connectLanes(b, &other, gateway, idB, laneConfig{})
	const each, underWay = 300, 10
	room := map[netip.Addr]chan struct{}{a4: make(chan struct{}, underWay), b4: make(chan struct{}, underWay)}
	var senders sync.WaitGroup
	for _, f := range []struct {
		n    *laneNode
		from netip.Addr
	}{{a, a4}, {b, b4}} {
		senders.Go(func() {
			for i := range each {
				room[f.from] <- struct{}{} // so few that no queue overflows
				f.n.inject(superPacketAt(tcp4, f.from, gw4, uint32(i*3000), 3000))
			}
		})
	}
	var got [][]byte
	for len(got) < 2*each*3 {
		for _, p := range segments(t, next(t, nic.Packets())) {
			got = append(got, p)
			if from, _ := addressesOf(p); p[33]&flagPSH != 0 {
				<-room[from]
			}
		}
	}
	senders.Wait()
	var want [][]byte
	for i := range each {
		want = append(want, segments(t, superPacketAt(tcp4, a4, gw4, uint32(i*3000), 3000))...)
		want = append(want, segments(t, superPacketAt(tcp4, b4, gw4, uint32(i*3000), 3000))...)
	}
	sameFlows(t, got, want)
	if nic.violated.Load() {
		t.Error("two at a time")
	}
	gw.expectDrops(nil)
}

// TestIdleLaneFallsSilent: reports do not ask for answers, or two ends would never come to rest.
func TestIdleLaneFallsSilent(t *testing.T) {
	gw, a, atGateway, atMember := pairOf(t, allOffloads, laneConfig{})
	a.inject(superPacket(udp4, a4, gw4, 1))
	gw.host(1)
	waiting := func(l *laneEnd) bool {
		l.path.mu.Lock()
		defer l.path.mu.Unlock()
		return min(l.path.reporter.NextNanos(), l.path.liveness.NextNanos()) != path.Never
	}
	for range 20 { // what has been said alone is answered by nothing that would have to be answered
		await(t, "both ends to rest", func() bool { return !waiting(atMember) && !waiting(atGateway) })
		atMember.say(controlPacket{frames: lane.AppendPathResponse(nil, lane.PathData{})})
		sealed := atMember.sealed.Load()
		await(t, "it to be sealed", func() bool { return atMember.sealed.Load() > sealed || !atMember.hasControl.Load() })
	}
	if waiting(atMember) {
		t.Error("the member waits for an answer to what asks for none")
	}
}

// ratchet makes the keys of the next epoch and returns its number.
func (s *secrets) ratchet() uint32 {
	s.t.Helper()
	next, err := s.chain[len(s.chain)-1].Next(keyschedule.Step{Shared: s.shared()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.chain = append(s.chain, next)
	return next.Epoch()
}
