package tun

import (
	"fmt"
	"sync"
)

// memoryQueuePackets bounds each direction of a Memory device.
const memoryQueuePackets = 256

// Memory is a Device without a kernel. What the host side injects with [Memory.Inject] is read by the
// dataplane; what the dataplane writes comes out of [Memory.Output].
type Memory struct {
	name   string
	in     chan []byte
	out    chan []byte
	done   chan struct{}
	closed sync.Once
}

var _ Device = (*Memory)(nil)

// NewMemory returns an open device with the given name.
func NewMemory(name string) *Memory {
	return &Memory{
		name: name,
		in:   make(chan []byte, memoryQueuePackets),
		out:  make(chan []byte, memoryQueuePackets),
		done: make(chan struct{}),
	}
}

// Inject queues one packet as if the host had sent it. It blocks while the queue is full and returns ErrClosed
// after Close. A packet longer than MaxPacketBytes is an error. The slice belongs to the device from then on.
func (m *Memory) Inject(packet []byte) error {
	if len(packet) > MaxPacketBytes {
		return fmt.Errorf("inject into %s: packet of %d bytes, at most %d", m.name, len(packet), MaxPacketBytes)
	}
	if m.isClosed() {
		return ErrClosed
	}
	select {
	case m.in <- packet:
		return nil
	case <-m.done:
		return ErrClosed
	}
}

// Output is the channel of packets that the dataplane wrote. It is never closed.
func (m *Memory) Output() <-chan []byte { return m.out }

// Name returns the name given to NewMemory.
func (m *Memory) Name() string { return m.name }

// BatchSize is small, so that tests cross batch borders.
func (m *Memory) BatchSize() int { return 8 }

// Read waits for one injected packet and takes those that wait behind it.
func (m *Memory) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if m.isClosed() {
		return 0, ErrClosed
	}
	select {
	case p := <-m.in:
		sizes[0] = copy(bufs[0][offset:], p)
	case <-m.done:
		return 0, ErrClosed
	}
	n := 1
	for n < len(bufs) {
		select {
		case p := <-m.in:
			sizes[n] = copy(bufs[n][offset:], p)
			n++
		default:
			return n, nil
		}
	}
	return n, nil
}

// Write copies the packets to Output, blocking while it is full.
func (m *Memory) Write(bufs [][]byte, offset int) error {
	for _, b := range bufs {
		if m.isClosed() {
			return ErrClosed
		}
		select {
		case m.out <- append([]byte(nil), b[offset:]...):
		case <-m.done:
			return ErrClosed
		}
	}
	return nil
}

// Offloads reports none.
func (m *Memory) Offloads() Offloads { return Offloads{} }

// Close ends Read, Write and Inject. What was injected and not read is lost.
func (m *Memory) Close() error {
	m.closed.Do(func() { close(m.done) })
	return nil
}

// isClosed spares Read and Write the select's free choice between a packet and the end.
func (m *Memory) isClosed() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}
