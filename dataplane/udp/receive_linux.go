package udp

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlBytes holds all control messages of a datagram received, or sent: of an IPv4 one on an IPv6 socket the address is
// told twice.
const controlBytes = 192

// receiver is what recvmmsg writes to, beside the data, and a call that is under way, kept here so that none of it is
// allocated.
type receiver struct {
	kernel  kernel
	attempt func(fd uintptr) bool
	n       int // messages offered, then received
	errno   syscall.Errno

	headers [MaxBatch]mmsghdr
	control [MaxBatch][controlBytes]byte
	vectors [MaxBatch]unix.Iovec
	names   [MaxBatch][unix.SizeofSockaddrInet6]byte
	zones   zones
}

func newReceiver(k kernel) *receiver {
	r := &receiver{kernel: k}
	r.attempt = r.attemptReceive
	for i := range r.headers {
		h := &r.headers[i].Msghdr
		h.Name, h.Control, h.Iov = &r.names[i][0], &r.control[i][0], &r.vectors[i]
		h.SetIovlen(1)
	}
	return r
}

// offer makes the buffers of messages those that the kernel fills.
func (r *receiver) offer(ms []Message) {
	for i := range ms {
		data := ms[i].Data[:cap(ms[i].Data)]
		r.vectors[i].Base = &data[0]
		r.vectors[i].SetLen(len(data))
		h := &r.headers[i]
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlBytes)
	}
}

// take fills messages with what the kernel has written.
func (r *receiver) take(ms []Message) {
	for i := range ms {
		h, m := &r.headers[i], &ms[i]
		m.Data = m.Data[:h.bytes]
		m.From = r.zones.addrPort(&r.names[i])
		m.parseControl(r.control[i][:h.Controllen])
	}
}

// attemptReceive takes what is there. It reports false if the poller shall wait for more.
func (r *receiver) attemptReceive(fd uintptr) bool {
	n := 0
	for r.errno = unix.EINTR; r.errno == unix.EINTR; {
		n, r.errno = r.kernel.recvmmsg(int(fd), r.headers[:r.n])
	}
	if r.errno == unix.EAGAIN {
		return false
	}
	r.n = n
	return true
}

func (b *batch) receive(ms []Message) (int, error) {
	r := b.receiver
	r.offer(ms)
	for {
		r.n = len(ms)
		if err := b.raw.Read(r.attempt); err != nil {
			return 0, b.closedOr("receive", err)
		}
		switch {
		case r.errno == 0:
			r.take(ms[:r.n])
			return r.n, nil
		case isPassing(r.errno):
			b.stats.receiveErrors.Add(1)
		default:
			return 0, fmt.Errorf("receive UDP: %w", r.errno)
		}
	}
}
