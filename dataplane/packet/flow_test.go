package packet

import (
	"bytes"
	"math/bits"
	"math/rand/v2"
	"testing"
)

func TestFlowHashCoversTheFlow(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 5))
	const seed = 0x1234
	for range 2000 {
		d := randomBuilder(rng, 50)
		p := d.build(false)
		h, _ := Parse(p)
		hash := FlowHash(p, seed)
		if hash != h.FlowHash(p, seed) {
			t.Fatal("the two ways to hash differ")
		}
		if FlowHash(p, seed+1) == hash {
			t.Fatal("the seed does nothing")
		}
		transport, _ := slowPlaces(p)
		first, last := 12, transport+4
		if d.v6 {
			first = 8
		}
		for i := range p {
			if i == 0 || !d.v6 && (i == 6 || i == 7) {
				continue // version, header length and fragmentation say where things are
			}
			q := bytes.Clone(p)
			q[i] ^= 1 << rng.IntN(8)
			covered := i >= first && i < last || !d.v6 && i == 9 || d.v6 && i == 6
			if same := FlowHash(q, seed) == hash; same == covered {
				t.Fatalf("byte %d of %x: covered %v, same hash %v", i, p, covered, same)
			}
		}
	}
}

func TestFlowHashOfFragments(t *testing.T) {
	d := builder{udp: true, ttl: 9, payload: make([]byte, 20)}
	first := d.build(false)
	first[6] = 0x20
	d.flow = 0
	second := bytes.Clone(first)
	second[6], second[7], second[20] = 0, 3, 0xee
	if FlowHash(first, 1) != FlowHash(second, 1) {
		t.Error("fragments of a packet are of different flows")
	}
	h, _ := Parse(first)
	if !h.Fragment || h.SrcPort != 0 || h.FlowHash(first, 1) != FlowHash(first, 1) {
		t.Errorf("%+v", h)
	}
}

// TestFlowHashSpreads changes one bit of the ports at a time and expects half of the hash to change.
func TestFlowHashSpreads(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		p := builder{v6: v6, ttl: 9, flags: tcpACK}.build(false)
		transport, _ := slowPlaces(p)
		counts, changed, n := map[uint32]int{}, 0, 0
		for port := range 1 << 14 {
			p[transport], p[transport+1] = byte(port>>8), byte(port)
			hash := FlowHash(p, 99)
			counts[hash&255]++
			p[transport+3] ^= 1 << (port % 8)
			changed += bits.OnesCount32(hash ^ FlowHash(p, 99))
			p[transport+3] ^= 1 << (port % 8)
			n++
		}
		for bucket, c := range counts {
			if c < 24 || c > 120 { // 64 expected, standard deviation 8
				t.Errorf("v6 %v: bucket %d has %d of %d", v6, bucket, c, n)
			}
		}
		if mean := float64(changed) / float64(n); mean < 15 || mean > 17 {
			t.Errorf("v6 %v: one bit changes %.2f bits", v6, mean)
		}
	}
}
