package packet

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

func BenchmarkSum(b *testing.B) {
	buf := make([]byte, 65536)
	for _, n := range []int{20, 40, 64, 1400, 65500} {
		b.Run(fmt.Sprintf("%d bytes", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				Sum(buf[:n], 1)
			}
		})
	}
	b.Run("1400 bytes by words of 16 bits", func(b *testing.B) {
		b.SetBytes(1400)
		for b.Loop() {
			sum(buf[:1400])
		}
	})
}

func BenchmarkComplete(b *testing.B) {
	p := builder{flags: tcpACK, options: timestamps, payload: make([]byte, 1368)}.build(true)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		Complete(p, 20, tcpChecksumOffset)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		p := builder{v6: v6, flags: tcpACK, options: timestamps, payload: make([]byte, 1300)}.build(true)
		b.Run(fmt.Sprintf("IPv6 %v", v6), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Parse(p)
			}
		})
		b.Run(fmt.Sprintf("IPv6 %v/in place", v6), func(b *testing.B) {
			var h Header
			for b.Loop() {
				h.Read(p)
			}
		})
	}
}

func BenchmarkFlowHash(b *testing.B) {
	seed := maphash.MakeSeed()
	for _, v6 := range []bool{false, true} {
		p := builder{v6: v6, flags: tcpACK, options: timestamps, payload: make([]byte, 1300)}.build(true)
		h, _ := Parse(p)
		b.Run(fmt.Sprintf("IPv6 %v/bytes", v6), func(b *testing.B) {
			for b.Loop() {
				FlowHash(p, 1)
			}
		})
		b.Run(fmt.Sprintf("IPv6 %v/header", v6), func(b *testing.B) {
			for b.Loop() {
				h.FlowHash(p, 1)
			}
		})
		b.Run(fmt.Sprintf("IPv6 %v/maphash", v6), func(b *testing.B) {
			first, last := 12, 24
			if v6 {
				first, last = 8, 44
			}
			for b.Loop() {
				maphash.Bytes(seed, p[first:last])
			}
		})
	}
}

func BenchmarkCut(b *testing.B) {
	var dst [MaxHeaderBytes]byte
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, partial := range []bool{true, false} {
				p, o := superPacket(b, v6, udp)
				b.Run(fmt.Sprintf("IPv6 %v/UDP %v/partial %v", v6, udp, partial), func(b *testing.B) {
					b.SetBytes(int64(len(p)))
					b.ReportAllocs()
					segments := 0
					for b.Loop() {
						c, ok := NewCutter(p, o)
						if !ok {
							b.Fatal("refused")
						}
						for k := range c.Segments() {
							c.PutHeader(dst[:], k, partial)
						}
						segments += c.Segments()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(segments), "ns/segment")
				})
			}
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		for _, flows := range []int{1, 8, 32} {
			benchmarkJoin(b, v6, flows, true)
		}
	}
	benchmarkJoin(b, false, 1, false)
}

// benchmarkJoin joins segments of interleaved flows. The headers that joining changes are put back each time.
func benchmarkJoin(b *testing.B, v6 bool, flows int, partial bool) {
	p, o := superPacket(b, v6, false)
	segments := slowCut(p, int(o.SegmentBytes), partial)
	var in, headers [][]byte
	for len(in) < JoinPackets-flows*len(segments) || len(in) == 0 {
		for k := range segments {
			for f := range flows {
				q := append([]byte(nil), segments[k]...)
				t := slowTransport(q)
				q[t+1] = byte(f)
				slowFix(q, t, partial)
				if len(in) < JoinPackets {
					in, headers = append(in, q), append(headers, append([]byte(nil), q[:80]...))
				}
			}
		}
	}
	b.Run(fmt.Sprintf("IPv6 %v/%d flows/partial %v", v6, flows, partial), func(b *testing.B) {
		j := NewJoiner(JoinConfig{TCP: true, UDP: true, VerifyFull: true})
		bytes := 0
		for _, q := range in {
			bytes += len(q)
		}
		b.SetBytes(int64(bytes))
		b.ReportAllocs()
		for b.Loop() {
			for _, q := range in {
				if j.Add(q, partial, 0) != JoinTaken {
					b.Fatal("not taken")
				}
			}
			n := 0
			for {
				m, ok := j.Next()
				if !ok {
					break
				}
				if len(m.Pieces) > 1 {
					copy(m.Pieces[0], headers[n])
				}
				n += len(m.Pieces)
			}
			if flows > 1 {
				for i := range in {
					copy(in[i], headers[i])
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(in)), "ns/packet")
	})
}

func BenchmarkDecapsulate(b *testing.B) {
	p := builder{tos: 2, ttl: 9, flags: tcpACK}.build(false)
	b.ReportAllocs()
	for b.Loop() {
		Decapsulate(CE, p)
		p[1] = 2
	}
}

func BenchmarkClampMSS(b *testing.B) {
	p := builder{ttl: 9, flags: tcpSYN, options: []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7}}.build(false)
	data := builder{ttl: 9, flags: tcpACK, payload: make([]byte, 1000)}.build(false)
	b.Run("SYN", func(b *testing.B) {
		for b.Loop() {
			ClampMSS(p, 1420, false)
			binary.BigEndian.PutUint16(p[42:], 1460)
		}
	})
	b.Run("other", func(b *testing.B) {
		for b.Loop() {
			ClampMSS(data, 1420, false)
		}
	})
}

func TestHotPathAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	p, o := superPacket(t, false, false)
	segments := slowCut(p, int(o.SegmentBytes), true)
	j := NewJoiner(JoinConfig{TCP: true, UDP: true, VerifyFull: true, Seed: 1})
	var dst [MaxHeaderBytes]byte
	syn := builder{ttl: 9, flags: tcpSYN, options: []byte{2, 4, 5, 180}}.build(false)
	if n := testing.AllocsPerRun(50, func() {
		c, _ := NewCutter(p, o)
		for k := range c.Segments() {
			c.PutHeader(dst[:], k, false)
		}
		for _, s := range segments {
			j.Add(s, true, 0)
		}
		for {
			m, ok := j.Next()
			if !ok {
				break
			}
			if m.Offload.Segmentation == tun.SegmentNone && len(m.Pieces) > 1 {
				t.Fatal("not joined")
			}
		}
		h, _ := Parse(syn)
		h.FlowHash(syn, 1)
		FlowHash(syn, 1)
		ClampMSS(syn, 1280, false)
		SetCE(syn)
		Decapsulate(ECT1, syn)
		checksumIsValid(syn)
		Complete(syn, 20, 16)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
