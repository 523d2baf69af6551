package dataplane

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

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
	gw.expectOnlyLateDrops()
	a.expectOnlyLateDrops()
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
	gw.expectOnlyLateDrops()
	a.expectOnlyLateDrops()
}

// expectOnlyLateDrops expects none but of what lanes that have ended had to say.
func (n *laneNode) expectOnlyLateDrops() {
	n.t.Helper()
	drops := n.drops()
	if delete(drops, DropLaneEnded.String()); len(drops) != 0 {
		n.t.Errorf("dropped %v", drops)
	}
}
