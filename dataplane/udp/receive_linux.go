package udp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// controlBytes holds all control messages of a datagram received, or sent: of an IPv4 one on an IPv6 socket the address is
// told twice.
const controlBytes = 192

// receiver is what recvmmsg writes to, beside the data.
type receiver struct {
	headers [MaxBatch]mmsghdr
	control [MaxBatch][controlBytes]byte
	vectors [MaxBatch]unix.Iovec
	names   [MaxBatch][unix.SizeofSockaddrInet6]byte
	zones   zones
}

func newReceiver() *receiver {
	r := &receiver{}
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

func (b *batch) receive(ms []Message) (int, error) {
	if !b.gate.enter() {
		return 0, ErrClosed
	}
	defer b.gate.leave()
	r := b.receiver
	r.offer(ms)
	for {
		n, errno := b.kernel.recvmmsg(b.fd, r.headers[:len(ms)], unix.MSG_WAITFORONE)
		switch {
		case b.gate.isClosed(): // which ends the wait with nothing, or an empty datagram
			return 0, ErrClosed
		case errno == 0:
			r.take(ms[:n])
			return n, nil
		case errno == unix.EINTR:
		case isPassing(errno):
			b.stats.receiveErrors.Add(1)
		default:
			return 0, fmt.Errorf("receive UDP: %w", errno)
		}
	}
}
