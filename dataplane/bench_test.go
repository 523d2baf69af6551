package dataplane

import (
	"context"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// payload makes packets of 1,380 bytes, the default MTU.
var payload = strings.Repeat("x", 1380-28)

// endless is a NIC whose host takes everything and always has another batch of one packet to send, if it has one.
type endless struct {
	*tun.Memory
	packet  []byte
	written chan int      // packets per Write
	ended   chan struct{} // closed by Close
}

func newEndless(packet []byte) *endless {
	return &endless{
		Memory: tun.NewMemory("mem0"), packet: packet, written: make(chan int, 64), ended: make(chan struct{}),
	}
}

func (n *endless) BatchSize() int { return 128 }

func (n *endless) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if n.packet == nil {
		return n.Memory.Read(bufs, sizes, offset)
	}
	for i := range bufs {
		sizes[i] = copy(bufs[i][offset:], n.packet)
	}
	return len(bufs), nil
}

func (n *endless) Write(bufs [][]byte, _ int) error {
	select {
	case n.written <- len(bufs):
		return nil
	case <-n.ended:
		return tun.ErrClosed
	}
}

func (n *endless) Close() error {
	close(n.ended)
	return n.Memory.Close()
}

// serveBench runs an engine with one peer until the benchmark ends.
func serveBench(b *testing.B, nic tun.Device, c Carrier) {
	b.Helper()
	e := New(Config{NIC: nic})
	if err := e.Apply(gatewaySnapshot(idA)); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran, attached := make(chan error, 1), make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	go func() { attached <- e.Attach(ctx, idA, c) }()
	b.Cleanup(func() {
		cancel()
		nic.Close()
		<-ran
		<-attached
	})
}

// BenchmarkFromNIC is the way of a packet from the NIC through route and queue to the carrier.
func BenchmarkFromNIC(b *testing.B) {
	sent := make(chan struct{}, 1024)
	nic := newEndless(ip(gw4, a4, payload))
	serveBench(b, nic, half{
		send: func([]byte) error {
			select {
			case sent <- struct{}{}:
				return nil
			case <-nic.ended:
				return errWire
			}
		},
		receive: untilDone,
	})
	b.ReportAllocs()
	b.SetBytes(1380)
	for b.Loop() {
		<-sent
	}
}

// BenchmarkToNIC is the way from the carrier through the source check to the NIC. The packet's own buffer is the
// carrier's allocation, left out here.
func BenchmarkToNIC(b *testing.B) {
	nic, packet := newEndless(nil), ip(a4, gw4, payload)
	underWay := make(chan struct{}, nicQueuePackets) // no more than fit the queue, so that none is dropped
	serveBench(b, nic, half{
		send: func([]byte) error { return nil },
		receive: func(ctx context.Context) ([]byte, error) {
			select {
			case underWay <- struct{}{}:
				return packet, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	})
	b.ReportAllocs()
	b.SetBytes(1380)
	left := 0
	for b.Loop() {
		if left == 0 {
			left = <-nic.written
		}
		left--
		<-underWay
	}
}

// BenchmarkClassify is the reader's part alone: header, source, destination, queue.
func BenchmarkClassify(b *testing.B) {
	e, a, _ := idle(b)
	queue, snapshot, packet := a.peer.turn.Load().queue, e.current.Load(), ip(gw4, a4, payload)
	b.ReportAllocs()
	b.SetBytes(int64(len(packet)))
	for b.Loop() {
		e.fromNIC(b.Context(), snapshot, packet)
		e.release(<-queue)
	}
}
