package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// crowdPeers is how many peers a large gateway has.
const crowdPeers = 10_000

// crowdSnapshot lists peers of one address of each family.
func crowdSnapshot(peers int) Snapshot {
	s := gatewaySnapshot()
	for i := range uint32(peers) {
		four, six, id := [4]byte{10, 99}, [16]byte{0xfd, 0x99}, PeerID{0: 9}
		binary.BigEndian.PutUint16(four[2:], uint16(i))
		binary.BigEndian.PutUint32(six[12:], i)
		binary.BigEndian.PutUint32(id[28:], i)
		s.Peers = append(s.Peers, Peer{ID: id, Prefixes: hosts(netip.AddrFrom4(four), netip.AddrFrom16(six))})
	}
	return s
}

// BenchmarkCrowdApply is a change of the network, however small, at a gateway of many peers.
func BenchmarkCrowdApply(b *testing.B) {
	e, s := New(), crowdSnapshot(crowdPeers)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Apply(s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCrowdIssue is a connection ID more and one less among those of many lanes.
func BenchmarkCrowdIssue(b *testing.B) {
	e, s := New(), newSecrets(b)
	l := &Lane{engine: e}
	const idsPerLane = 4
	var all []lane.ConnectionID
	for range idsPerLane * crowdPeers {
		id := s.ids.Next(0)
		e.lanes.add(id, l)
		all = append(all, id)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		id := all[i%len(all)]
		e.lanes.remove(id)
		e.lanes.add(id, l)
	}
}

// BenchmarkCrowdFind is what another peer's packet costs at a gateway of few and of many peers: its lane and its route.
func BenchmarkCrowdFind(b *testing.B) {
	for name, peers := range map[string]int{"100": 100, "10000": crowdPeers} {
		b.Run(name, func(b *testing.B) {
			e, s, snapshot := New(), newSecrets(b), crowdSnapshot(peers)
			if err := e.Apply(snapshot); err != nil {
				b.Fatal(err)
			}
			var ids []lane.ConnectionID
			for range peers {
				ids = append(ids, s.ids.Next(0))
				e.lanes.add(ids[len(ids)-1], &Lane{engine: e})
			}
			r := e.current.Load()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i * 7919 % peers // far from the one before
				to, ok := r.lookup(snapshot.Peers[at].Prefixes[0].Addr())
				if l := e.lanes.find(ids[at]); l == nil || !ok || to.peer == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}
