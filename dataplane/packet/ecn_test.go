package packet

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The table of RFC 6040 figure 4, row by row as printed; columns Not-ECT, ECT(0), ECT(1), CE.
var figure4 = []struct {
	inner   ECN
	out     [4]ECN
	results [4]Decapsulation
}{
	{NotECT, [4]ECN{NotECT, NotECT, NotECT, NotECT}, [4]Decapsulation{
		DecapsulationOrdinary, DecapsulationDangerous, DecapsulationDangerous, DecapsulationDrop,
	}},
	{ECT0, [4]ECN{ECT0, ECT0, ECT1, CE}, [4]Decapsulation{}},
	{ECT1, [4]ECN{ECT1, ECT1, ECT1, CE}, [4]Decapsulation{1: DecapsulationUnusual}},
	{CE, [4]ECN{CE, CE, CE, CE}, [4]Decapsulation{2: DecapsulationDangerous}},
}

func TestDecapsulate(t *testing.T) {
	for _, row := range figure4 {
		for column, outer := range []ECN{NotECT, ECT0, ECT1, CE} {
			for _, v6 := range []bool{false, true} {
				d := builder{v6: v6, ttl: 3, id: 77, tos: 0xb8 | byte(row.inner), flags: tcpACK, payload: []byte("abc")}
				p := d.build(false)
				if ReadECN(p) != row.inner {
					t.Fatalf("ReadECN %d, want %d", ReadECN(p), row.inner)
				}
				got := Decapsulate(outer, p)
				d.tos = 0xb8 | byte(row.out[column])
				if want := d.build(false); got != row.results[column] || !bytes.Equal(p, want) {
					t.Errorf("inner %d, outer %d: result %d, want %d\n got %x\nwant %x",
						row.inner, outer, got, row.results[column], p, want)
				}
			}
		}
	}
}

func TestEncapsulate(t *testing.T) {
	for e := NotECT; e <= CE; e++ {
		if Encapsulate(e) != e {
			t.Errorf("%d", e)
		}
	}
}

func TestSetCE(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	for range 4000 {
		d := randomBuilder(rng, 10)
		p := d.build(false)
		able := d.tos&3 != 0
		if able {
			d.tos |= 3
		}
		want := d.build(false)
		if SetCE(p) != able || !sameButZeroSum(p, want) {
			t.Fatalf("got  %x\nwant %x", p, want)
		}
	}
}

// sameButZeroSum takes the two forms of zero in an IPv4 header checksum for the same.
func sameButZeroSum(a, b []byte) bool {
	if a[0]>>4 == 4 && sum(a[:20]) == 0xffff {
		a = bytes.Clone(a)
		copy(a[10:12], b[10:12])
	}
	return bytes.Equal(a, b)
}

func FuzzDecapsulate(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(byte(3), builder{v6: v6, tos: 2, ttl: 1, flags: tcpACK}.build(false))
	}
	f.Fuzz(func(t *testing.T, outer byte, p []byte) {
		if _, ok := Parse(p); !ok {
			return
		}
		before := bytes.Clone(p)
		headerBytes := int(p[0]&15) * 4
		inner := ReadECN(p)
		result := Decapsulate(ECN(outer), p)
		after := ReadECN(p)
		if result == DecapsulationDrop && !bytes.Equal(p, before) {
			t.Fatal("dropped and changed")
		}
		if (result == DecapsulationDrop) != (inner == NotECT && outer&3 == 3) || inner == NotECT && after != NotECT {
			t.Fatalf("inner %d, outer %d: %d, %d", inner, outer, after, result)
		}
		if p[0]>>4 == 4 {
			a, b := sum(before[:headerBytes]), sum(p[:headerBytes])
			if a%0xffff != b%0xffff {
				t.Fatalf("header sum was %#x, is %#x", a, b)
			}
			copy(p[10:12], before[10:12])
		}
		p[1] = before[1]
		if !bytes.Equal(p, before) {
			t.Fatal("changed more than ECN and header checksum")
		}
	})
}
