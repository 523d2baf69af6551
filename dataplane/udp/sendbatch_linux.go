package udp

import (
	"net"
	"net/netip"
)

func (b *batch) sendBatch(ms []Outgoing) (sent int, err error) {
	s := b.sender()
	defer b.senders.Put(s)
	for sent < len(ms) {
		prepared := b.prepare(s, ms[sent:])
		if prepared == 0 { // one that takes several calls
			if err := sendOutgoing(b, b.stats, &ms[sent]); err != nil {
				return sent, err
			}
			sent++
			continue
		}
		n, err := b.sendPrepared(s, ms[sent:sent+prepared])
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// prepare fills a sender from the front of a batch, as long as a message takes one system call.
func (b *batch) prepare(s *sender, ms []Outgoing) int {
	segmentation := b.segmentation.Load()
	for i := range ms[:min(len(ms), MaxBatch)] {
		m := &ms[i]
		segmentBytes := m.segmentBytes()
		single := len(m.Data) <= segmentBytes
		if segmentBytes > MaxSendBytes || !single && !segmentation ||
			len(m.Data) > segmentBytes*segmentsPerCall(segmentBytes) {
			return i
		}
		s.set(i, m.Data, segmentBytes, m.ECN&ecnMask, m.To)
	}
	return min(len(ms), MaxBatch)
}

// sendPrepared sends what has been prepared with one call of sendmmsg, which may take less than it was given.
func (b *batch) sendPrepared(s *sender, ms []Outgoing) (sent int, err error) {
	n, errno, err := b.sendmmsg(s, 0, len(ms))
	s.release(len(ms))
	total, bytes := 0, 0
	for i := range ms[:n] {
		total += datagrams(len(ms[i].Data), ms[i].segmentBytes())
		bytes += len(ms[i].Data)
	}
	b.stats.sent(total, bytes)
	if err != nil || errno == 0 {
		return n, err
	}
	m := &ms[n]
	segmentBytes := m.segmentBytes()
	if len(m.Data) > segmentBytes && isSegmentationRefused(errno) {
		if err := b.retrySingly(s, errno, m.Data, segmentBytes, m.ECN&ecnMask, m.To); err != nil {
			return n, err
		}
		return n + 1, nil
	}
	return n, b.stats.sendError(errno, min(segmentBytes, len(m.Data)), datagrams(len(m.Data), segmentBytes))
}

// write sends what quic-go has made, control messages included.
func (b *batch) write(data, control []byte, to netip.AddrPort) error {
	s := b.sender()
	defer b.senders.Put(s)
	var err error
	if s.name, err = newSockaddr(to, b.ipv6); err != nil {
		return &net.OpError{Op: "write", Net: "udp", Addr: net.UDPAddrFromAddrPort(to), Err: err}
	}
	h := &s.headers[0].Msghdr
	h.Name, h.Namelen = &s.name.raw[0], s.name.bytes
	h.Control = nil
	if len(control) > 0 {
		h.Control = &control[0]
	}
	h.SetControllen(len(control))
	s.setData(0, data)
	_, errno, err := b.sendmmsg(s, 0, 1)
	s.release(1)
	switch {
	case err != nil:
		return &net.OpError{Op: "write", Net: "udp", Addr: net.UDPAddrFromAddrPort(to), Err: err}
	case errno != 0:
		return b.opError("sendmmsg", errno, to)
	}
	return nil
}
