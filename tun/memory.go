package tun

import (
	"fmt"
	"sync"
)

// memoryQueuePackets bounds each direction of a Memory device.
const memoryQueuePackets = 256

// Memory is a Device without a kernel. What the host side injects with [Memory.Inject] or [Memory.InjectPacket] is read
// by the dataplane; what the dataplane writes comes out of [Memory.Packets].
type Memory struct {
	name     string
	offloads Offloads
	in       chan Packet
	packets  chan Packet
	done     chan struct{}
	closed   sync.Once
}

var _ Device = (*Memory)(nil)

// NewMemory returns an open device with the given name and no offloads.
func NewMemory(name string) *Memory { return NewMemoryWithOffloads(name, Offloads{}) }

// NewMemoryWithOffloads returns an open device that takes and gives super-packets and partial checksums as o says.
func NewMemoryWithOffloads(name string, o Offloads) *Memory {
	return &Memory{
		name:     name,
		offloads: o,
		in:       make(chan Packet, memoryQueuePackets),
		packets:  make(chan Packet, memoryQueuePackets),
		done:     make(chan struct{}),
	}
}

// Inject queues one packet as if the host had sent it. It blocks while the queue is full and returns ErrClosed
// after Close. A packet longer than MaxPacketBytes is an error. The slice belongs to the device from then on.
func (m *Memory) Inject(packet []byte) error { return m.InjectPacket(Packet{Data: packet}) }

// InjectPacket is Inject for a packet with an Offload, which the device passes on as it is, right or wrong.
func (m *Memory) InjectPacket(p Packet) error {
	if len(p.Data) > MaxPacketBytes {
		return fmt.Errorf("inject into %s: packet of %d bytes, at most %d", m.name, len(p.Data), MaxPacketBytes)
	}
	if m.isClosed() {
		return ErrClosed
	}
	select {
	case m.in <- p:
		return nil
	case <-m.done:
		return ErrClosed
	}
}

// Packets is the channel of packets that the dataplane wrote, their pieces joined. It is never closed.
func (m *Memory) Packets() <-chan Packet { return m.packets }

// Name returns the name given to NewMemory.
func (m *Memory) Name() string { return m.name }

// Offloads returns those given to NewMemoryWithOffloads.
func (m *Memory) Offloads() Offloads { return m.offloads }

// ReadPackets waits for one injected packet and takes those that wait behind it.
func (m *Memory) ReadPackets(packets []Packet, budgetBytes int) (int, error) {
	if m.isClosed() {
		return 0, ErrClosed
	}
	if len(packets) == 0 {
		return 0, nil
	}
	select {
	case p := <-m.in:
		packets[0].fill(p)
	case <-m.done:
		return 0, ErrClosed
	}
	left := budgetLeft(budgetBytes) - len(packets[0].Data)
	if left <= 0 {
		return 1, nil
	}
	n, err := m.TryReadPackets(packets[1:], left)
	return 1 + n, err
}

// TryReadPackets takes the injected packets that are there.
func (m *Memory) TryReadPackets(packets []Packet, budgetBytes int) (int, error) {
	if m.isClosed() {
		return 0, ErrClosed
	}
	left := budgetLeft(budgetBytes)
	for n := range packets {
		if left <= 0 {
			return n, nil
		}
		select {
		case p := <-m.in:
			packets[n].fill(p)
			left -= len(p.Data)
		default:
			return n, nil
		}
	}
	return len(packets), nil
}

// fill copies a packet to the buffer that Data is.
func (p *Packet) fill(from Packet) {
	n := copy(p.Data[Headroom:Headroom+MaxPacketBytes], from.Data)
	p.Data, p.Offload = p.Data[Headroom:Headroom+n], from.Offload
}

// budgetLeft turns the budget that a caller gives into a number to count down from.
func budgetLeft(budgetBytes int) int {
	if budgetBytes <= 0 {
		return int(^uint(0) >> 1)
	}
	return budgetBytes
}

// WritePacket copies the packet to Packets, blocking while it is full.
func (m *Memory) WritePacket(pieces [][]byte, o Offload) error {
	if m.isClosed() {
		return ErrClosed
	}
	if err := m.offloads.refuse(pieces, o); err != nil {
		return err
	}
	p := Packet{Offload: o}
	for _, piece := range pieces {
		p.Data = append(p.Data, piece...)
	}
	select {
	case m.packets <- p:
		return nil
	case <-m.done:
		return ErrClosed
	}
}

// Close ends reading, writing and injecting. What was injected and not read is lost.
func (m *Memory) Close() error {
	m.closed.Do(func() { close(m.done) })
	return nil
}

// isClosed spares those who use the queues the select's free choice between a packet and the end.
func (m *Memory) isClosed() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}
