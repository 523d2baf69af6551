package dataplane

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/tun"
)

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
		Keys: lane.Keys{Key: s.key(0, side)}, Header: end.params.HeaderSeal, ID: end.params.PeerIDs[0].ID,
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
	if s.lane.carries() {
		t.Error("a lane that can seal nothing is still the way")
	}
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
