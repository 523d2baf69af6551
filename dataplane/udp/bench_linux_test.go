package udp

import (
	"fmt"
	"testing"
)

// rig is two Conns on a link, with the receiver's buffers.
type rig struct {
	a, b *Conn
	d    *Destination
	ms   []Message
}

func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	left, right := newLink(t, 1500)
	r := &rig{a: left.open(cfg), b: right.open(cfg), ms: messages(8)}
	r.d = to(t, r.a, at(r.b, right4))
	arrive(t, r.a, r.d, r.b)
	return r
}

// drain receives datagrams.
func (r *rig) drain(t testing.TB, datagrams int) {
	for datagrams > 0 {
		n, err := r.b.Receive(r.ms)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.ms[:n] {
			datagrams -= r.ms[i].Datagrams()
		}
	}
}

// TestNothingAllocated: by Send, SendBatch, Receive, and Deliver once its queue is warm.
func TestNothingAllocated(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for name, cfg := range modes {
		r := newRig(t, cfg)
		data := make([]byte, 40*1400)
		small := make([]Outgoing, 64)
		for i := range small {
			small[i] = Outgoing{Data: data[:64], To: r.d}
		}
		for what, f := range map[string]func(){
			"Send": func() {
				if err := r.a.Send(data, 1400, 2, r.d); err != nil {
					t.Fatal(err)
				}
				r.drain(t, 40)
			},
			"SendBatch": func() {
				if _, err := r.a.SendBatch(small); err != nil {
					t.Fatal(err)
				}
				r.drain(t, 64)
			},
		} {
			if n := testing.AllocsPerRun(200, f); n != 0 {
				t.Errorf("%s, %s: %v allocations", name, what, n)
			}
		}
		q, packets := r.b.QUIC(), batchOf(8)
		m := &Message{Data: data[:8*1400], SegmentBytes: 1400, From: at(r.a, left4), Local: right4, InterfaceIndex: 3}
		if n := testing.AllocsPerRun(200, func() {
			r.b.Deliver(m)
			if n, err := q.ReadBatch(packets, 0); n != 8 || err != nil {
				t.Fatal(n, err)
			}
		}); n != 0 {
			t.Errorf("%s, Deliver: %v allocations", name, n)
		}
	}
}

// BenchmarkSend: 64 KB as 45 datagrams, the other end's receive not counted (but the kernel's delivery is: it is one call).
func BenchmarkSend(b *testing.B) {
	for name, cfg := range modes {
		b.Run(fmt.Sprintf("64KB/%s", name), func(b *testing.B) {
			r := newRig(b, cfg)
			data := make([]byte, 45*1440)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := r.a.Send(data, 1440, 0, r.d); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				r.drain(b, 45)
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("64B/%s", name), func(b *testing.B) { // per batch of 64
			r := newRig(b, cfg)
			out := make([]Outgoing, 64)
			for i := range out {
				out[i] = Outgoing{Data: make([]byte, 64), To: r.d}
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.a.SendBatch(out); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				r.drain(b, 64)
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/packet")
		})
	}
}

// BenchmarkReceive: the same from the other end, the send not counted.
func BenchmarkReceive(b *testing.B) {
	for name, cfg := range modes {
		b.Run(fmt.Sprintf("64KB/%s", name), func(b *testing.B) {
			r := newRig(b, cfg)
			data := make([]byte, 45*1440)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if err := r.a.Send(data, 1440, 0, r.d); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				r.drain(b, 45)
			}
		})
		b.Run(fmt.Sprintf("64B/%s", name), func(b *testing.B) { // per batch of 64
			r := newRig(b, cfg)
			r.ms = messages(64)
			out := make([]Outgoing, 64)
			for i := range out {
				out[i] = Outgoing{Data: make([]byte, 64), To: r.d}
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if _, err := r.a.SendBatch(out); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				r.drain(b, 64)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/packet")
		})
	}
}
