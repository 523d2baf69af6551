package dataplane

import (
	"slices"
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
	"github.com/aethertunnel/aethertunnel/tun"
)

// move makes the stranger go on from another socket.
func (o *stranger) move() {
	o.t.Helper()
	old := o.conn
	o.conn = openConn(o.t, loopback4)
	conn := o.conn
	o.t.Cleanup(func() { _ = conn.Close() }) // perhaps closed already
	if err := old.Close(); err != nil {
		o.t.Fatal(err)
	}
	from, index := o.to.From()
	var err error
	if o.to, err = o.conn.NewDestination(o.to.To(), from, index); err != nil {
		o.t.Fatal(err)
	}
}

// idOfNext returns the connection ID to which the next packet of the peer comes.
func (o *stranger) idOfNext(p []byte) lane.ConnectionID {
	o.t.Helper()
	for {
		for _, f := range o.frames() {
			if slices.Equal(f.Datagram.Payload, p) {
				return f.id
			}
		}
	}
}

// TestNewPathsTakeNewConnectionIDs: who sees two paths of a lane does not see that they are of one lane (RFC 9000 section
// 9.5).
func TestNewPathsTakeNewConnectionIDs(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	ids := issuedIDs(o.end.params.PeerIDs[0].ID)
	p := ip(gw4, a4, "to the peer, wherever it is")
	expect := func(what string, want lane.ConnectionID) {
		t.Helper()
		gw.inject(tun.Packet{Data: slices.Clone(p)})
		if got := o.idOfNext(p); got != want {
			t.Errorf("%s: packets come to %v, want %v", what, got, want)
		}
	}
	roam := func(what string, want lane.ConnectionID) {
		t.Helper()
		o.move()
		o.send(0, o.inContext0(ip(a4, gw4, "from elsewhere")))
		if got := o.challenged(); got != want {
			t.Errorf("%s: challenge for %v, want %v", what, got, want)
		}
		await(t, "the lane to move", func() bool { return o.end.way.Load().to.To() == o.conn.LocalAddr() })
		expect(what, want)
	}
	expect("at first", ids[0].ID)
	for i := 1; i < lane.ConnectionIDs; i++ {
		roam("another path", ids[i].ID)
	}
	if retired := o.end.TakeRetired(); len(retired) != 0 {
		t.Errorf("retired %v of paths that may be gone back to", retired)
	}
	roam("none left", ids[3].ID)
	if retired := o.end.TakeRetired(); !slices.Equal(retired, []uint32{0}) {
		t.Errorf("retired %v with the path that was silent for longest", retired)
	}
	fresh := lane.IssuedID{Sequence: 4, ID: lane.ConnectionID{9, 9}}
	o.end.AddPeerIDs([]lane.IssuedID{fresh})
	expect("a new one", fresh.ID)
	if retired := o.end.TakeRetired(); !slices.Equal(retired, []uint32{3}) {
		t.Errorf("retired %v, want what two paths have had", retired)
	}
}

// TestClientOnANewNetworkTakesANewConnectionID, as soon as it knows.
func TestClientOnANewNetworkTakesANewConnectionID(t *testing.T) {
	_, _, atGateway, atMember := pairOf(t, allOffloads, laneConfig{})
	first := atMember.way.Load().id
	atMember.Ping()
	await(t, "an answer", func() bool {
		atMember.path.mu.Lock()
		defer atMember.path.mu.Unlock()
		return atMember.path.local == loopback4.Addr()
	})
	if atMember.way.Load().id != first {
		t.Error("a new connection ID for the first network")
	}
	atMember.path.mu.Lock()
	atMember.path.local = loopback6.Addr() // where it was a moment ago
	atMember.path.mu.Unlock()
	atMember.Ping()
	await(t, "another connection ID", func() bool { return atMember.way.Load().id != first })
	if got, want := atMember.way.Load().id, issuedIDs(first)[1].ID; got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if retired := atMember.TakeRetired(); !slices.Equal(retired, []uint32{0}) {
		t.Errorf("retired %v", retired)
	}
	sealed, _ := atMember.Progress()
	atMember.Ping()
	await(t, "packets to arrive", func() bool { _, opened := atGateway.Progress(); return opened > sealed })
}

// TestResetEndsALane: one for a connection ID in use, with its token, from wherever, and no other.
func TestResetEndsALane(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	o := newStranger(gw, idA, laneConfig{})
	ids := issuedIDs(o.end.params.PeerIDs[0].ID)
	reset := func(token lane.ResetToken) []byte {
		return append([]byte{0x40, 1, 2, 3, 4}, token[:]...)
	}
	elsewhere := openConn(t, loopback4)
	t.Cleanup(func() {
		if err := elsewhere.Close(); err != nil {
			t.Error(err)
		}
	})
	to, err := elsewhere.NewDestination(gw.conn.LocalAddr(), o.to.To().Addr(), loopbackIndex)
	if err != nil {
		t.Fatal(err)
	}
	send := func(p []byte) {
		t.Helper()
		if err := elsewhere.Send(p, 0, 0, to); err != nil {
			t.Fatal(err)
		}
	}
	long := reset(ids[0].Token)
	long[0] |= 0x80
	for _, p := range [][]byte{reset(ids[1].Token), reset(lane.ResetToken{}), long, reset(ids[0].Token)[1:]} {
		send(p) // none of which is one
	}
	await(t, "QUIC to get them", func() bool { return gw.conn.Stats().QUICDatagrams == 4 })
	if _, failed := o.end.Failed(); failed || !o.end.carries() {
		t.Fatal("a reset was believed without the token of a connection ID in use")
	}
	send(reset(ids[0].Token))
	next(t, o.end.failed)
	if reason, failed := o.end.Failed(); !failed || reason != lane.ReasonReset || o.end.carries() {
		t.Errorf("failed %v, for %v", failed, reason)
	}
	send(reset(ids[0].Token)) // of a lane that is over: QUIC's, or nobody's
	await(t, "QUIC to get it", func() bool { return gw.conn.Stats().QUICDatagrams == 5 })
	if n := len(gw.engine.resets.lanes); n != 0 {
		t.Errorf("%d tokens are kept of a lane that is over", n)
	}
}
