package udp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// sender is what sendmmsg reads from, beside the data and the address, and a call that is under way, kept here so that
// none of it is allocated.
type sender struct {
	kernel   kernel
	stats    *counters
	attempt  func(fd uintptr) bool
	from, to int // of headers
	n        int // sent
	errno    syscall.Errno

	headers [MaxBatch]mmsghdr
	control [MaxBatch][controlBytes]byte
	vectors [MaxBatch]unix.Iovec
	name    sockaddr // of what quic-go writes
}

func newSender(k kernel, stats *counters) *sender {
	s := &sender{kernel: k, stats: stats}
	s.attempt = s.attemptSend
	for i := range s.headers {
		s.headers[i].Iov = &s.vectors[i]
		s.headers[i].SetIovlen(1)
	}
	return s
}

// set makes message i one of data to a destination, cut into segmentBytes if it is longer.
func (s *sender) set(i int, data []byte, segmentBytes int, ecn uint8, to *Destination) {
	h, control := &s.headers[i], append(s.control[i][:0], to.control[ecn]...)
	if len(data) > segmentBytes {
		control = appendSegment(control, segmentBytes)
	}
	h.Name, h.Namelen = &to.name.raw[0], to.name.bytes
	h.Control = nil
	if len(control) > 0 {
		h.Control = &s.control[i][0]
	}
	h.SetControllen(len(control))
	s.setData(i, data)
}

func (s *sender) setData(i int, data []byte) {
	s.vectors[i] = unix.Iovec{}
	if len(data) > 0 {
		s.vectors[i].Base = &data[0]
		s.vectors[i].SetLen(len(data))
	}
}

// release forgets the first n messages, so that no buffer is kept alive by a pool.
func (s *sender) release(n int) {
	for i := range s.headers[:n] {
		s.headers[i].Name, s.headers[i].Control = nil, nil
		s.vectors[i] = unix.Iovec{}
	}
}

// segmentsPerCall is how many datagrams of a size one call with UDP_SEGMENT takes.
func segmentsPerCall(segmentBytes int) int {
	return max(1, min(MaxSegments, MaxSendBytes/max(1, segmentBytes)))
}

func (b *batch) send(data []byte, segmentBytes int, ecn uint8, to *Destination) error {
	s := b.sender()
	defer b.senders.Put(s)
	perCall := segmentBytes * segmentsPerCall(segmentBytes)
	for {
		n := len(data)
		if n > segmentBytes {
			n = min(n, perCall)
		}
		var err error
		if n > segmentBytes && !b.segmentation.Load() {
			err = b.sendSingly(s, data[:n], segmentBytes, ecn, to)
		} else {
			err = b.sendSegments(s, data[:n], segmentBytes, ecn, to)
		}
		if err != nil {
			return err
		}
		if data = data[n:]; len(data) == 0 {
			return nil
		}
	}
}

// sendSegments sends datagrams by one system call.
func (b *batch) sendSegments(s *sender, data []byte, segmentBytes int, ecn uint8, to *Destination) error {
	s.set(0, data, segmentBytes, ecn, to)
	_, errno, err := b.sendmmsg(s, 0, 1)
	s.release(1)
	switch {
	case err != nil:
		return err
	case errno == 0:
		b.stats.sent(datagrams(len(data), segmentBytes), len(data))
		return nil
	case len(data) > segmentBytes && isSegmentationRefused(errno):
		return b.retrySingly(s, errno, data, segmentBytes, ecn, to)
	}
	return b.stats.sendError(errno, min(segmentBytes, len(data)), datagrams(len(data), segmentBytes))
}

// isSegmentationRefused reports whether a send may have failed for UDP_SEGMENT alone: without checksum offload, through
// IPsec, or on old kernels for segments longer than the path's MTU. EINVAL has other reasons, too.
func isSegmentationRefused(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EOPNOTSUPP
}

// retrySingly sends again what was refused with UDP_SEGMENT, which is to blame if that succeeds.
func (b *batch) retrySingly(s *sender, why syscall.Errno, data []byte, segmentBytes int, ecn uint8, to *Destination) error {
	b.stats.segmentationRefused.Add(1)
	if err := b.sendSingly(s, data, segmentBytes, ecn, to); err != nil {
		return err
	}
	b.stopSegmentation("refused on the way to " + to.to.Addr().String() + ": " + why.Error())
	return nil
}

// sendSingly sends datagrams by sendmmsg, at most MaxSegments of them.
func (b *batch) sendSingly(s *sender, data []byte, segmentBytes int, ecn uint8, to *Destination) error {
	total := datagrams(len(data), segmentBytes)
	for i, rest := 0, data; i < total; i++ {
		n := min(segmentBytes, len(rest))
		s.set(i, rest[:n], segmentBytes, ecn, to)
		rest = rest[n:]
	}
	defer s.release(total)
	for sent := 0; sent < total; {
		n, errno, err := b.sendmmsg(s, sent, total)
		bytes := min(len(data), (sent+n)*segmentBytes) - sent*segmentBytes
		b.stats.sent(n, bytes)
		sent += n
		switch {
		case err != nil:
			return err
		case errno != 0:
			return b.stats.sendError(errno, min(segmentBytes, len(data)-sent*segmentBytes), total-sent)
		}
	}
	return nil
}

// datagrams is how many of a size there are in bytes.
func datagrams(bytes, segmentBytes int) int {
	if bytes <= segmentBytes {
		return 1
	}
	return (bytes + segmentBytes - 1) / segmentBytes
}

// attemptSend sends what there is room for. It reports false if the poller shall wait for room for the first message.
func (s *sender) attemptSend(fd uintptr) bool {
	for s.errno = unix.EINTR; s.errno == unix.EINTR; {
		s.n, s.errno = s.kernel.sendmmsg(int(fd), s.headers[s.from:s.to])
	}
	if s.errno == unix.EAGAIN {
		s.stats.waitsForRoom.Add(1)
		return false
	}
	return true
}

// sendmmsg sends messages from and to an index, once there is room for the first. It returns how many were sent, and why
// the one behind them was not if there were none. err is ErrClosed, or one of the poller.
func (b *batch) sendmmsg(s *sender, from, to int) (n int, errno syscall.Errno, err error) {
	s.from, s.to = from, to
	if err := b.raw.Write(s.attempt); err != nil {
		return 0, 0, b.closedOr("send", err)
	}
	if s.errno != 0 {
		return 0, s.errno, nil
	}
	return s.n, 0, nil
}
