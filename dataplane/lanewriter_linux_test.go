package dataplane

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

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
