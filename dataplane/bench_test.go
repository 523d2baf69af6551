package dataplane

import (
	"context"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/tun"
)

// payload makes packets of 1,420 bytes, the default MTU.
var payload = strings.Repeat("x", 1420-28)

// endless is a NIC whose host takes everything and, from begin on, always has another batch of one packet to send.
type endless struct {
	*tun.Memory
	packet  tun.Packet
	begun   chan struct{}
	written chan int      // bytes per WritePacket
	ended   chan struct{} // closed by Close
}

func newEndless(o tun.Offloads) *endless {
	return &endless{
		Memory: tun.NewMemoryWithOffloads("mem0", o), written: make(chan int, 64),
		begun: make(chan struct{}), ended: make(chan struct{}),
	}
}

// begin lets the host send a packet, again and again. It is called once.
func (n *endless) begin(p tun.Packet) {
	n.packet = p
	close(n.begun)
}

// endlessBatch is how many packets the host has at a time.
const endlessBatch = 16

func (n *endless) ReadPackets(packets []tun.Packet, budgetBytes int) (int, error) {
	select {
	case <-n.begun:
		return n.TryReadPackets(packets, budgetBytes)
	case <-n.ended:
		return 0, tun.ErrClosed
	}
}

func (n *endless) TryReadPackets(packets []tun.Packet, budgetBytes int) (int, error) {
	select {
	case <-n.ended:
		return 0, tun.ErrClosed
	default:
	}
	select {
	case <-n.begun:
	default:
		return 0, nil
	}
	count := 0
	for count < endlessBatch && budgetBytes > 0 {
		p := &packets[count]
		p.Data, p.Offload = p.Data[tun.Headroom:][:copy(p.Data[tun.Headroom:], n.packet.Data)], n.packet.Offload
		budgetBytes -= len(p.Data)
		count++
	}
	return count, nil
}

func (n *endless) WritePacket(pieces [][]byte, _ tun.Offload) error {
	bytes := 0
	for _, p := range pieces {
		bytes += len(p)
	}
	select {
	case n.written <- bytes:
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
	e := New()
	if err := e.Apply(gatewaySnapshot(idA)); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran, attached := make(chan error, 1), make(chan error, 1)
	go func() { ran <- e.Run(ctx, nic) }()
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
	nic := newEndless(tun.Offloads{})
	nic.begin(tun.Packet{Data: ip(gw4, a4, payload)})
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
	b.SetBytes(1420)
	for b.Loop() {
		<-sent
	}
}

// BenchmarkToNIC is the way from the carrier through the source check to the NIC. The packet's own buffer is the
// carrier's allocation, left out here.
func BenchmarkToNIC(b *testing.B) {
	nic, packet := newEndless(tun.Offloads{}), ip(a4, gw4, payload)
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
	b.SetBytes(1420)
	for b.Loop() {
		<-nic.written
		<-underWay
	}
}

// BenchmarkClassify is the reader's part alone: header, source, destination, queue, and out of it again.
func BenchmarkClassify(b *testing.B) {
	for name, p := range map[string]tun.Packet{
		"one":   {Data: ip(gw4, a4, payload)},
		"super": superPacket(tcp4, gw4, a4, 60_000),
	} {
		b.Run(name, func(b *testing.B) {
			e, a, _ := idle(b)
			r, one := e.newReader(), []tun.Packet{p}
			b.ReportAllocs()
			b.SetBytes(int64(len(p.Data)))
			for b.Loop() {
				r.read(one...)
				e.discard(a.peer)
			}
		})
	}
}
