package dataplane

import (
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// TestQueueOfALaneThatLeaves: what waits goes to the carrier at once, or is dropped when there is none.
func TestQueueOfALaneThatLeaves(t *testing.T) {
	const waiting = 3
	s := newStages(t, laneConfig{})
	wait := func() {
		t.Helper()
		for i := range waiting {
			s.read(superPacket(udp4, a4, gw4, 10+i))
		}
		if n := s.lane.peer.waiting.Load(); n != waiting {
			t.Fatalf("%d packets wait", n)
		}
	}
	wait()
	s.lane.SealStop()
	if n := s.lane.peer.waiting.Load(); n != 0 {
		t.Errorf("%d packets wait for nobody", n)
	}
	s.from.expectDrops(map[Reason]uint64{DropNoSession: waiting})

	theirs := s.from.carrier(gateway)
	s.read(superPacket(udp4, a4, gw4, 1))
	next(t, theirs.in)
	await(t, "the carrier to wait for more", func() bool { return len(s.lane.peer.wake) == 0 })
	if err := s.lane.Seal(0, s.key.key(0, keyschedule.Client)); err != nil {
		t.Fatal(err)
	}
	wait()
	s.lane.SealStop()
	for i := range waiting {
		want := segments(t, superPacket(udp4, a4, gw4, 10+i))
		if got := next(t, theirs.in); !equalPackets([][]byte{got}, want...) {
			t.Errorf("got %x", got)
		}
	}
	s.from.expectDrops(map[Reason]uint64{DropNoSession: waiting})
}

// TestWaitingPacketsOfANewLane: what waits for a slow carrier when a lane takes over does not wait for more.
func TestWaitingPacketsOfANewLane(t *testing.T) {
	s := newStages(t, laneConfig{})
	s.lane.SealStop()
	s.lane.kicked.Store(false) // by what was to be sent before
	if err := s.lane.Seal(0, s.key.key(0, keyschedule.Client)); err != nil {
		t.Fatal(err)
	}
	if !s.lane.carries() || !s.lane.kicked.Load() {
		t.Errorf("carries %v, served %v", s.lane.carries(), s.lane.kicked.Load())
	}
}

// TestLaneThatMayNotTakeOver is stopped, suspect, closed, or unheard.
func TestLaneThatMayNotTakeOver(t *testing.T) {
	for name, prepare := range map[string]func(l *Lane){
		"stopped": func(l *Lane) { l.SealStop() },
		"suspect": func(l *Lane) { l.suspect.Store(true) },
		"closed":  func(l *Lane) { l.Close() },
		"unheard": func(l *Lane) { l.everOpened.Store(false) },
	} {
		l := newStages(t, laneConfig{}).lane.Lane
		l.leave()
		prepare(l)
		if l.settle(); l.carries() {
			t.Errorf("%s: it is the way", name)
		}
	}
}

// TestClosedLaneIsForgotten by all who know lanes.
func TestClosedLaneIsForgotten(t *testing.T) {
	s := newStages(t, laneConfig{})
	if l := s.lane; l.kept.index == 0 || len(l.peer.lanes) != 1 {
		t.Fatalf("index %d with the keeper, %d lanes of the peer", l.kept.index, len(l.peer.lanes))
	}
	s.lane.Close()
	if l := s.lane; l.kept.index != 0 || !l.kept.over || len(l.peer.lanes) != 0 ||
		s.from.engine.lanes.find(l.id) != s.from.engine.lanes.ended {
		t.Errorf("still known: %+v, %d lanes of the peer", l.kept, len(l.peer.lanes))
	}
}

// TestNoLanesForARemovedPeer: one that was found right before it was removed gets none.
func TestNoLanesForARemovedPeer(t *testing.T) {
	e, a, _ := idle(t)
	if err := e.Apply(gatewaySnapshot(idB)); err != nil {
		t.Fatal(err)
	}
	if a.peer.addLane(&Lane{}) {
		t.Error("the lane would outlive its peer's removal")
	}
}

// TestExpireForgetsAKey: that of the epoch before, when its time is over and not earlier.
func TestExpireForgetsAKey(t *testing.T) {
	s := newStages(t, laneConfig{})
	s.keep()
	epoch := s.key.ratchet()
	if err := s.far.Install(epoch, s.key.key(epoch, keyschedule.Client), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.lane.Seal(epoch, s.key.key(epoch, keyschedule.Client)); err != nil {
		t.Fatal(err)
	}
	s.cross(superPacket(udp4, a4, gw4, 1), 1)
	held := func() bool { return !s.far.opener.Load().Expire(0) }
	if s.far.Expire(); !held() {
		t.Error("forgotten while packets of it may be under way")
	}
	s.to.engine.started = s.to.engine.started.Add(-lane.PreviousKeyNanos)
	if s.far.Expire(); held() {
		t.Error("held past its time")
	}
}

// TestSuspectLaneGivesWay: a lane whose packets nobody answers for gives them to the carrier, and takes them back when it
// is answered.
func TestSuspectLaneGivesWay(t *testing.T) {
	gw := startLanes(t, gatewaySnapshot(idA), allOffloads, loopback4)
	theirs := gw.carrier(idA)
	o := newStranger(gw, idA, laneConfig{})
	gw.inject(superPacket(udp4, gw4, a4, 1))
	await(t, "the lane to be suspect", func() bool { return o.end.suspect.Load() && !o.end.carries() })
	p := superPacket(udp4, gw4, a4, 2)
	gw.inject(p)
	if got := next(t, theirs.in); !equalPackets([][]byte{got}, segments(t, p)...) {
		t.Errorf("the carrier got %x", got)
	}
	sealed, _ := o.end.Progress()
	o.send(0, o.seal(lane.AppendReport(nil, &lane.Report{Highest: sealed - 1, Received: sealed})))
	await(t, "the lane to be the way again", o.end.carries)
}

// TestRefusedPacketsCountByReason: every verdict but the good one has its counter.
func TestRefusedPacketsCountByReason(t *testing.T) {
	want := map[lane.Verdict]Reason{
		lane.VerdictReplayed: DropLaneReplayed, lane.VerdictOld: DropLaneReplayed, lane.VerdictReserved: DropLaneFrames,
		lane.VerdictForged: DropLaneForged, lane.VerdictNoKey: DropLaneForged, lane.VerdictClosed: DropLaneForged,
		lane.VerdictForm: DropLaneForged,
	}
	for verdict, reason := range want {
		r := receiver{e: New()}
		r.refused(verdict)
		for counted := range reasonCount {
			n, most := r.e.drops[counted].Load(), uint64(0)
			if counted == reason {
				most = 1
			}
			if n != most {
				t.Errorf("%v: %v counts %d", verdict, counted, n)
			}
		}
	}
}

// TestOneSealerAtATime, or two packets would have one number: whoever finds another at work leaves the packets to it.
func TestOneSealerAtATime(t *testing.T) {
	s := newStages(t, laneConfig{})
	s.lane.serving.Store(true)
	s.read(superPacket(udp4, a4, gw4, 1))
	s.send()
	if n := s.lane.peer.waiting.Load(); n != 1 || !s.lane.serving.Load() || s.from.conn.Stats().SentDatagrams != 0 {
		t.Errorf("%d packets wait, %v", n, s.from.conn.Stats())
	}
	s.lane.serving.Store(false)
	s.read(superPacket(udp4, a4, gw4, 1))
	if s.send(); s.lane.peer.waiting.Load() != 0 {
		t.Error("left in the queue")
	}
}
