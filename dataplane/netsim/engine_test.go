package netsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aethertunnel/aethertunnel/dataplane"
	"github.com/aethertunnel/aethertunnel/dataplane/udp"
	"github.com/aethertunnel/aethertunnel/tun"
)

// bubble lets engines, with all their goroutines, live in the virtual time of a network: that of a testing/synctest bubble.
// Everything but engines runs on the goroutine that drives it, when all others wait.
type bubble struct {
	w       *world
	began   time.Time
	engines []*engine
	wake    chan struct{} // capacity 1

	mu     sync.Mutex
	outbox [][]func() // what engines ask for, by node: so the order of nodes is not the scheduler's
}

func (b *bubble) post(nd *node, do func()) {
	b.mu.Lock()
	b.outbox[nd.index] = append(b.outbox[nd.index], do)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// drive has everything happen up to a time.
func (b *bubble) drive(untilNanos int64) {
	w := b.w
	for w.fault == "" {
		synctest.Wait()
		now := int64(time.Since(b.began))
		w.net.Advance(now)
		if b.flush() {
			continue
		}
		if w.net.Next() <= min(now, untilNanos) {
			for w.fault == "" && w.net.Next() <= min(now, untilNanos) {
				w.net.Step()
			}
			continue
		}
		if now >= untilNanos {
			return
		}
		timer := time.NewTimer(time.Duration(min(w.net.Next(), untilNanos) - now))
		select {
		case <-timer.C:
		case <-b.wake:
		}
		timer.Stop()
	}
}

// flush does what engines have asked for, and takes what they have for their hosts. It reports whether there was anything.
func (b *bubble) flush() (some bool) {
	b.mu.Lock()
	boxes := make([][]func(), len(b.outbox))
	boxes, b.outbox = b.outbox, boxes
	b.mu.Unlock()
	for _, box := range boxes {
		for _, do := range box {
			some = true
			do()
		}
	}
	for _, e := range b.engines {
		e.wire.interfaceBytes.Store(int64(e.nd.host.interfaceBytes))
		for more := true; more; {
			select {
			case p := <-e.nic.Packets():
				some = true
				e.nd.deliver(p.Data)
			default:
				more = false
			}
		}
	}
	return some
}

// engine is a whole dataplane: the product's, on a NIC without a kernel.
type engine struct {
	b        *bubble
	nd       *node
	engine   *dataplane.Engine
	nic      *tun.Memory
	wire     *wire
	conn     *udp.Conn
	ends     []laneEnd
	carriers map[*session]*carrier
	cancel   context.CancelFunc
	parts    sync.WaitGroup
}

func (b *bubble) newEngine(nd *node) (*engine, error) {
	w := &wire{nd: nd, b: b, some: make(chan struct{}, 1), done: make(chan struct{})}
	e := &engine{
		b: b, nd: nd, engine: dataplane.New(), wire: w, carriers: map[*session]*carrier{},
		nic: tun.NewMemoryWithOffloads("sim0", tun.Offloads{VirtioHeader: nd.w.seed%2 == 0}),
	}
	w.local = nd.socket.LocalAddr()
	conn, err := udp.OpenOn(w, udp.Config{QUICQueuePackets: 1})
	if err != nil {
		return nil, err
	}
	e.conn = conn
	if err := e.engine.Apply(nd.snapshot()); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, e.cancel = context.WithCancel(context.Background())
	for _, run := range []func() error{
		func() error { return e.engine.Run(ctx, e.nic) },
		func() error { return e.engine.Receive(ctx, e.conn) },
	} {
		e.parts.Go(func() {
			if err := run(); err != nil {
				b.post(nd, func() { nd.w.failf("node %d: %v", nd.index, err) })
			}
		})
	}
	b.engines = append(b.engines, e)
	return e, nil
}

// snapshot is what a node knows of the network: a member reaches everybody through the gateway.
func (nd *node) snapshot() dataplane.Snapshot {
	host := func(n *node) netip.Prefix { return netip.PrefixFrom(n.inner, 32) }
	s := dataplane.Snapshot{NICAddresses: []netip.Addr{nd.inner}, NICPrefixes: []netip.Prefix{host(nd)}}
	for _, peer := range nd.w.nodes {
		switch {
		case peer == nd:
		case nd.index == 0:
			s.Peers = append(s.Peers, dataplane.Peer{ID: dataplane.PeerID(peer.id), Prefixes: []netip.Prefix{host(peer)}})
		case peer.index == 0:
			all := netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), 24)
			s.Peers = append(s.Peers, dataplane.Peer{ID: dataplane.PeerID(peer.id), Prefixes: []netip.Prefix{all}})
		}
	}
	return s
}

func (e *engine) close() {
	for _, c := range e.carriers {
		c.cancel()
	}
	e.cancel()
	e.nd.w.must(errors.Join(e.nic.Close(), e.conn.Close()))
	e.parts.Wait()
}

func (e *engine) newLane(spec laneSpec) (laneEnd, error) {
	to, err := e.conn.NewDestination(spec.to, netip.Addr{}, 0)
	if err != nil {
		return nil, err
	}
	tell := func() { e.b.post(e.nd, spec.opened) }
	l, err := e.engine.NewLane(dataplane.LaneConfig{
		Peer: dataplane.PeerID(spec.peer.id), Conn: e.conn, To: to, Params: spec.params, PacketBytes: spec.bytes,
		Opened: func(uint32) { tell() },
		Failed: func() { e.b.post(e.nd, func() { e.nd.w.failf("node %d: a lane has failed", e.nd.index) }) },
	})
	if err != nil {
		return nil, err
	}
	e.ends = append(e.ends, l)
	return l, nil
}

func (e *engine) stats(peer *node) dataplane.PeerStats {
	return e.engine.Stats().Peers[dataplane.PeerID(peer.id)]
}

func (e *engine) carries(peer *node) bool { return e.stats(peer).Lane != nil }

func (e *engine) maxInner(peer *node) int {
	if l := e.stats(peer).Lane; l != nil {
		return l.MaxPacketBytes
	}
	return 0
}

func (e *engine) send(_ *node, p []byte) { e.nd.w.must(e.nic.Inject(p)) }

func (e *engine) arrived(d *Datagram) { e.wire.push(d) }

func (e *engine) fromSession(s *session, p []byte) {
	if c := e.carriers[s]; c != nil {
		select {
		case c.in <- p:
		default: // QUIC drops what is not fetched in time
		}
	}
}

// state is what can be seen from outside.
func (e *engine) state() []byte {
	synctest.Wait()
	var b bytes.Buffer
	for _, l := range e.ends {
		epoch, opened := l.Epoch()
		sealed, next := l.Progress()
		fmt.Fprintln(&b, epoch, opened, sealed, next)
	}
	for _, peer := range e.nd.w.nodes {
		s := e.stats(peer)
		fmt.Fprintln(&b, s.ReceivedPackets, s.ReceivedBytes, s.SentPackets, s.SentBytes)
		if s.Lane != nil {
			fmt.Fprintln(&b, *s.Lane)
		}
	}
	return b.Bytes()
}

// carrier is a session as an engine sees it.
type carrier struct {
	e      *engine
	s      *session
	in     chan []byte
	cancel context.CancelFunc
}

// MaxPacketBytes is that of a session on an Ethernet.
func (c *carrier) MaxPacketBytes() int { return 1400 }

var errOver = errors.New("the session is over")

func (c *carrier) SendPacket(p []byte) error {
	p = bytes.Clone(p)
	c.e.b.post(c.e.nd, func() {
		c.e.nd.w.counts.overSession++
		c.e.nd.w.overSession(c.s, c.e.nd, p)
	})
	return nil
}

func (c *carrier) ReceivePacket(ctx context.Context) ([]byte, error) {
	select {
	case p := <-c.in:
		return p, nil
	case <-ctx.Done():
		return nil, errOver
	}
}

func (e *engine) attach(s *session) {
	const queue = 64
	ctx, cancel := context.WithCancel(context.Background())
	c := &carrier{e: e, s: s, in: make(chan []byte, queue), cancel: cancel}
	e.carriers[s] = c
	e.parts.Go(func() {
		_ = e.engine.Attach(ctx, dataplane.PeerID(s.peer(e.nd).id), c) // it ends as the session does
	})
}

func (e *engine) detach(s *session) {
	if c := e.carriers[s]; c != nil {
		c.cancel()
		delete(e.carriers, s)
	}
}

// wire is the socket of an engine.
type wire struct {
	nd             *node
	b              *bubble
	local          netip.AddrPort
	interfaceBytes atomic.Int64
	some           chan struct{} // capacity 1
	done           chan struct{}

	mu    sync.Mutex
	queue []*Datagram
}

func (w *wire) LocalAddr() netip.AddrPort { return w.local }

func (w *wire) Close() error {
	close(w.done)
	return nil
}

func (w *wire) push(d *Datagram) {
	w.mu.Lock()
	w.queue = append(w.queue, d)
	w.mu.Unlock()
	select {
	case w.some <- struct{}{}:
	default: // it is about to look anyway
	}
}

// Receive joins datagrams of one sender and one length, as UDP_GRO does.
func (w *wire) Receive(ms []udp.Message) (int, error) {
	for {
		if n := w.take(ms); n > 0 {
			return n, nil
		}
		select {
		case <-w.some:
		case <-w.done:
			return 0, udp.ErrClosed
		}
	}
}

func (w *wire) take(ms []udp.Message) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for open := false; len(w.queue) > 0; w.queue = w.queue[1:] {
		d := w.queue[0]
		if open {
			m := &ms[n-1]
			if m.From == d.From && m.Local == d.To.Addr() && m.ECN == d.ECN && len(d.Payload) <= m.SegmentBytes &&
				m.Datagrams() < udp.MaxSegments && len(m.Data)+len(d.Payload) <= udp.MaxReceiveBytes {
				m.Data = append(m.Data, d.Payload...)
				open = len(d.Payload) == m.SegmentBytes
				continue
			}
		}
		if n == len(ms) {
			return n
		}
		ms[n] = udp.Message{
			Data: append(ms[n].Data[:0], d.Payload...), SegmentBytes: len(d.Payload), From: d.From, Local: d.To.Addr(),
			InterfaceIndex: 1, ECN: d.ECN,
		}
		n, open = n+1, len(d.Payload) > 0
	}
	return n
}

// Send cuts a train, as UDP_SEGMENT does.
func (w *wire) Send(b []byte, segmentBytes int, ecn uint8, to *udp.Destination) error {
	limit := int(w.interfaceBytes.Load())
	if limit > 0 && min(segmentBytes, len(b))+HeaderBytes(to.To().Addr()) > limit {
		return udp.SizeError(segmentBytes)
	}
	from, _ := to.From()
	for rest := bytes.Clone(b); len(rest) > 0; {
		d := rest[:min(segmentBytes, len(rest))]
		rest = rest[len(d):]
		w.b.post(w.nd, func() {
			if err := w.nd.socket.Send(from, to.To(), ecn, d); err != nil {
				w.nd.w.logf("node %d: %v", w.nd.index, err)
			}
		})
	}
	return nil
}

// withEngines plays a schedule over whole dataplanes.
func withEngines(t *testing.T, seed uint64, s style) *world {
	t.Helper()
	w := newWorld(seed, s)
	w.bubble(t, w.run)
	return w
}

// bubble runs a schedule over whole dataplanes.
func (w *world) bubble(t *testing.T, run func()) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		b := &bubble{w: w, began: time.Now(), wake: make(chan struct{}, 1), outbox: make([][]func(), len(w.nodes))}
		w.drive = b.drive
		for _, nd := range w.nodes {
			e, err := b.newEngine(nd)
			if err != nil {
				t.Fatal(err)
			}
			nd.machine = e
		}
		w.guarded(run)
		for _, e := range b.engines {
			e.close()
		}
	})
}

var _ laneEnd = (*dataplane.Lane)(nil)
