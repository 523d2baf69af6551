package lane

import (
	"fmt"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

var benchSizes = []int{64, 1400}

// BenchmarkSeal compares sealing a packet with the bare AEAD call over the same bytes, and with that and the bare
// header protection mask.
func BenchmarkSeal(b *testing.B) {
	for _, suite := range allSuitesTested {
		for _, size := range benchSizes {
			frames, out := make([]byte, size), make([]byte, size+OverheadBytes)
			s, _ := newPair(b, suite, nil)
			key := testKeys(b, suite, 1, 0).Key.AEAD()
			nonce, mask := make([]byte, aead.NonceBytes), new([aead.MaskBytes]byte)
			name := fmt.Sprintf("%v/%d/", suite, size)
			b.Run(name+"bare", func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					key.Seal(out[HeaderBytes:HeaderBytes], nonce, frames, out[:HeaderBytes])
				}
			})
			b.Run(name+"bare+mask", func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					key.Seal(out[HeaderBytes:HeaderBytes], nonce, frames, out[:HeaderBytes])
					s.header.Mask(mask, (*[aead.SampleBytes]byte)(out[HeaderBytes:]))
				}
			})
			b.Run(name+"lane", func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					s.keyFirst, s.stop = 0, NumberLimit // a benchmark may outlast the key's limit
					if _, v := s.Seal(out, frames); v != VerdictOK {
						b.Fatal(v)
					}
				}
			})
		}
	}
}

// BenchmarkOpen does the same for opening. All three forms pay for bringing the packet back.
func BenchmarkOpen(b *testing.B) {
	for _, suite := range allSuitesTested {
		for _, size := range benchSizes {
			const packets = 64
			s, o := newPair(b, suite, nil)
			key := testKeys(b, suite, 1, 0).Key
			var sealed [packets][]byte
			for i := range sealed {
				sealed[i] = seal(b, s, make([]byte, size))
			}
			buf, mask := make([]byte, size+OverheadBytes), new([aead.MaskBytes]byte)
			plain := key.AEAD().Seal(make([]byte, HeaderBytes), make([]byte, aead.NonceBytes), make([]byte, size),
				make([]byte, HeaderBytes))
			nonce := make([]byte, aead.NonceBytes)
			bare := func(b *testing.B, withMask bool) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				a := key.AEAD()
				for b.Loop() {
					copy(buf, plain)
					if withMask {
						o.header.Mask(mask, (*[aead.SampleBytes]byte)(buf[HeaderBytes:]))
					}
					if _, err := a.Open(buf[HeaderBytes:HeaderBytes], nonce, buf[HeaderBytes:], buf[:HeaderBytes]); err != nil {
						b.Fatal(err)
					}
				}
			}
			name := fmt.Sprintf("%v/%d/", suite, size)
			b.Run(name+"bare", func(b *testing.B) { bare(b, false) })
			b.Run(name+"bare+mask", func(b *testing.B) { bare(b, true) })
			b.Run(name+"lane", func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				i := packets
				for b.Loop() {
					if i == packets {
						i, o.window = 0, window{} // or all would be replays
					}
					copy(buf, sealed[i])
					if _, _, v := o.Open(buf, 1); v != VerdictOK {
						b.Fatal(v)
					}
					i++
				}
			})
		}
	}
}

func BenchmarkParse(b *testing.B) {
	packet := append(AppendDatagramHeader(nil, 3, 2), make([]byte, 1400)...)
	b.Run("datagram", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := ParseDatagram(packet); !ok {
				b.Fatal("refused")
			}
		}
	})
	b.Run("report and datagram", func(b *testing.B) {
		r := Report{Highest: 1 << 33, Received: 1 << 30, ECT0: 1 << 20, DelayMicros: 400, ArrivalMicros: 1 << 31}
		mixed := append(AppendReport(nil, &r), packet...)
		var f Frames
		b.ReportAllocs()
		for b.Loop() {
			if !ParseFrames(mixed, &f) {
				b.Fatal("refused")
			}
		}
	})
}
