package udp

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// ecnMask is the bits of ECN in the traffic class (RFC 3168 section 5).
	ecnMask = 3
	// quicPacketBytes is the longest datagram kept for quic-go, which reads 1,452 bytes of each.
	quicPacketBytes = 1500
	// defaultQUICQueuePackets is a few round trips of a session without a lane.
	defaultQUICQueuePackets = 1024
)

// QUICConn is the socket as a quic.Transport wants it, which finds its fast paths by the methods: ReadBatch for batches
// and ECN, WriteMsgUDP for UDP_SEGMENT and the answer's source, SyscallConn for DF. It reads what Deliver queues.
type QUICConn struct {
	backend backend
	stats   *counters
	sizes   [2]int // of the buffers, by buffer; negative for the kernel's own
	resize  sync.Once

	begin  time.Time // since which the nanoseconds of narrow are counted
	narrow *narrowPaths
	twin   twin  // or nil
	noTwin error // why

	mu       sync.Mutex
	some     sync.Cond // that a waiting reader has something to look at; its lock is mu
	ring     []quicPacket
	first    int // index in ring of the oldest
	count    int
	deadline time.Time
	timer    *time.Timer // wakes readers at the deadline
	ended    bool
	// source is the last From as net has it, and never changed: most packets are of the same sender.
	source     *net.UDPAddr
	sourceFrom netip.AddrPort
}

// quicPacket is a datagram in the queue. Its buffer is made when the slot is first used.
type quicPacket struct {
	data   []byte
	source *net.UDPAddr
	local  netip.Addr
	index  uint32
	ecn    uint8
	ipv4   bool
}

func newQUICConn(b backend, cfg Config, stats *counters) *QUICConn {
	packets := cfg.QUICQueuePackets
	if packets <= 0 {
		packets = defaultQUICQueuePackets
	}
	q := &QUICConn{
		backend: b, stats: stats, ring: make([]quicPacket, packets),
		begin: time.Now(), narrow: newNarrowPaths(), noTwin: errNoSocket,
		sizes: [2]int{receiveBuffer: cfg.ReceiveBufferBytes, sendBuffer: cfg.SendBufferBytes},
	}
	for i, n := range q.sizes {
		if n == 0 {
			q.sizes[i] = defaultBufferBytes
		}
	}
	q.some.L = &q.mu
	return q
}

// sizeBuffers gives the socket the buffers of its Config.
func (q *QUICConn) sizeBuffers() error {
	for i, n := range q.sizes {
		if n < 0 {
			continue
		}
		if err := q.backend.setBuffer(buffer(i), n); err != nil {
			return err
		}
	}
	return nil
}

func (q *QUICConn) deliver(m *Message, data []byte, segmentBytes int) {
	if segmentBytes <= 0 || segmentBytes > len(data) {
		segmentBytes = len(data)
	}
	queued, dropped, long := 0, 0, 0
	q.mu.Lock()
	if q.sourceFrom != m.From || q.source == nil {
		q.source, q.sourceFrom = net.UDPAddrFromAddrPort(m.From), m.From
	}
	for len(data) > 0 { // an empty datagram is no QUIC packet
		n := min(segmentBytes, len(data))
		switch {
		case n > quicPacketBytes:
			long++
		case q.count == len(q.ring), q.ended:
			dropped++
		default:
			q.pushLocked(m, data[:n])
			queued++
		}
		if m.From.Addr().Is4() {
			q.narrow.heard(m.From, data[:n], m.Fragmented, q.nanos())
		}
		data = data[n:]
	}
	if queued > 0 {
		q.some.Signal()
	}
	q.mu.Unlock()
	q.stats.quicDatagrams.Add(uint64(queued))
	q.stats.quicDropped.Add(uint64(dropped))
	q.stats.quicTooLong.Add(uint64(long))
}

func (q *QUICConn) pushLocked(m *Message, datagram []byte) {
	p := &q.ring[(q.first+q.count)%len(q.ring)]
	if p.data == nil {
		p.data = make([]byte, 0, quicPacketBytes)
	}
	p.data = append(p.data[:0], datagram...)
	p.source, p.local, p.index, p.ecn, p.ipv4 = q.source, m.Local, m.InterfaceIndex, m.ECN, m.From.Addr().Is4()
	q.count++
}

// waitLocked waits until there is a packet. The error is net.ErrClosed or os.ErrDeadlineExceeded.
func (q *QUICConn) waitLocked() error {
	for {
		switch {
		case q.ended:
			return net.ErrClosed
		case !q.deadline.IsZero() && !time.Now().Before(q.deadline):
			return os.ErrDeadlineExceeded
		case q.count > 0:
			return nil
		}
		q.some.Wait()
	}
}

// popLocked moves the oldest packet into b and oob, as much of it as fits.
func (q *QUICConn) popLocked(b, oob []byte) (n, oobn int, source *net.UDPAddr) {
	p := &q.ring[q.first]
	var scratch [quicControlBytes]byte
	control := appendReceiveControl(scratch[:0], p.ipv4, p.local, p.index, p.ecn)
	if len(control) <= len(oob) { // a part of one would not parse
		oobn = copy(oob, control)
	}
	n, source = copy(b, p.data), p.source
	q.first = (q.first + 1) % len(q.ring)
	if q.count--; q.count == 0 {
		q.first = 0 // so that only as many slots are ever used as were once needed
	}
	return n, oobn, source
}

// quicControlBytes holds the control messages of a received packet on any system.
const quicControlBytes = 192

// ReadBatch waits for a packet and takes as many as there are and ms holds, each into its first buffer. The error is
// net.ErrClosed, or os.ErrDeadlineExceeded. The flags are ignored.
func (q *QUICConn) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	q.reclaimBuffers()
	if len(ms) == 0 {
		return 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.waitLocked(); err != nil {
		return 0, err
	}
	n := 0
	for ; n < len(ms) && q.count > 0; n++ {
		m := &ms[n]
		m.Flags = 0
		var source *net.UDPAddr
		m.N, m.NN, source = q.popLocked(m.Buffers[0], m.OOB)
		m.Addr = source
	}
	return n, nil
}

// ReadMsgUDP reads one packet like (*net.UDPConn).ReadMsgUDP.
func (q *QUICConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	q.reclaimBuffers()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.waitLocked(); err != nil {
		return 0, 0, 0, nil, err
	}
	n, oobn, addr = q.popLocked(b, oob)
	return n, oobn, 0, addr, nil
}

// ReadFrom reads one packet; quic-go uses it on Windows.
func (q *QUICConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, _, _, addr, err := q.ReadMsgUDP(b, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, addr, nil
}

// LocalAddr returns the address of the socket, a *net.UDPAddr.
func (q *QUICConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(q.backend.local()) }

// SetReadDeadline ends reads at a time, with os.ErrDeadlineExceeded, until it is set anew; the zero time never does.
func (q *QUICConn) SetReadDeadline(t time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return net.ErrClosed
	}
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	q.deadline = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		q.timer = time.AfterFunc(wait, q.wake)
	}
	q.some.Broadcast()
	return nil
}

// SetWriteDeadline is not supported: a write waits for room until the socket is closed.
func (q *QUICConn) SetWriteDeadline(time.Time) error { return errNoWriteDeadline }

// SetDeadline is not supported, as SetWriteDeadline.
func (q *QUICConn) SetDeadline(time.Time) error { return errNoWriteDeadline }

// SetReadBuffer sizes the socket's receive buffer, until the first read: then Config.ReceiveBufferBytes holds again.
func (q *QUICConn) SetReadBuffer(bytes int) error { return q.backend.setBuffer(receiveBuffer, bytes) }

// SetWriteBuffer sizes the socket's send buffer, until the first read: then Config.SendBufferBytes holds again.
func (q *QUICConn) SetWriteBuffer(bytes int) error { return q.backend.setBuffer(sendBuffer, bytes) }

// SyscallConn gives access to the descriptor's options. Reading and writing through it is not supported.
func (q *QUICConn) SyscallConn() (syscall.RawConn, error) { return rawConn{q.backend}, nil }

// Close ends reading. The socket stays open: it is the Conn's.
func (q *QUICConn) Close() error {
	q.end()
	return nil
}

func (q *QUICConn) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	if q.timer != nil {
		q.timer.Stop()
	}
	q.some.Broadcast()
}

func (q *QUICConn) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.some.Broadcast()
}

// reclaimBuffers sets the configured sizes again. A Transport makes buffers as large as it likes when it starts, and says
// so in the log if it cannot; its first read is the first that it does afterwards.
func (q *QUICConn) reclaimBuffers() {
	q.resize.Do(func() {
		// The sizes were good when the socket was opened. Should they not be now, the larger ones stay, as Offloads says.
		_ = q.sizeBuffers()
	})
}

// rawConn is a descriptor for options.
type rawConn struct{ backend backend }

func (r rawConn) Control(f func(fd uintptr)) error { return r.backend.descriptor(f) }
func (rawConn) Read(func(fd uintptr) bool) error   { return errNoRawIO }
func (rawConn) Write(func(fd uintptr) bool) error  { return errNoRawIO }
