package dataplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"golang.org/x/net/icmp"

	"github.com/aethertunnel/aethertunnel/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The network of the tests: a gateway, and members a, b and c with one address of each family.
var (
	gw4, gw6 = netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd00::1")
	a4, a6   = netip.MustParseAddr("100.64.0.2"), netip.MustParseAddr("fd00::2")
	b4, b6   = netip.MustParseAddr("100.64.0.3"), netip.MustParseAddr("fd00::3")
	c4, c6   = netip.MustParseAddr("100.64.0.4"), netip.MustParseAddr("fd00::4")

	gateway, idA, idB, idC = PeerID{1}, PeerID{2}, PeerID{3}, PeerID{4}
)

func hosts(addresses ...netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addresses {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// gatewaySnapshot is what a gateway knows: the given members.
func gatewaySnapshot(ids ...PeerID) Snapshot {
	s := Snapshot{NICAddresses: []netip.Addr{gw4, gw6}, NICPrefixes: hosts(gw4, gw6)}
	of := map[PeerID][]netip.Prefix{idA: hosts(a4, a6), idB: hosts(b4, b6), idC: hosts(c4, c6)}
	for _, id := range ids {
		s.Peers = append(s.Peers, Peer{ID: id, Prefixes: of[id]})
	}
	return s
}

// memberSnapshot is what a member with these addresses knows: the whole network is behind the gateway.
func memberSnapshot(own ...netip.Addr) Snapshot {
	return Snapshot{
		NICAddresses: own, NICPrefixes: hosts(own...), NICSources: hosts(own...),
		Peers: []Peer{{ID: gateway, Prefixes: []netip.Prefix{
			netip.MustParsePrefix("100.64.0.0/16"), netip.MustParsePrefix("fd00::/48"),
		}}},
	}
}

// node is a running engine on a NIC without a kernel.
type node struct {
	t      *testing.T
	engine *Engine
	nic    *tun.Memory
	stop   func() error // ends Run and returns what it did
}

// start runs an engine until the test ends. Tests call it inside a synctest bubble, whose Wait tells when all packets
// have come as far as they can.
func start(t *testing.T, s Snapshot) *node {
	t.Helper()
	nic := tun.NewMemory("mem0")
	n := &node{t: t, nic: nic}
	n.engine, n.stop = run(t, nic, s)
	return n
}

// run is start for any device.
func run(t *testing.T, nic tun.Device, s Snapshot) (e *Engine, stop func() error) {
	t.Helper()
	e = New()
	if err := e.Apply(s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, nic) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return errors.Join(nic.Close(), <-done)
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e, stop
}

// attach serves a carrier until the test ends or detach, which returns what Attach did.
func (n *node) attach(id PeerID, c Carrier) (detach func() error) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error, 1)
	go func() { done <- n.engine.Attach(ctx, id, c) }()
	detach = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	n.t.Cleanup(func() {
		if w, ok := c.(*wire); ok {
			w.end()
		}
		_ = detach()
	})
	synctest.Wait()
	return detach
}

// fromHost lets the host send packets.
func (n *node) fromHost(packets ...[]byte) {
	n.t.Helper()
	for _, p := range packets {
		if err := n.nic.Inject(bytes.Clone(p)); err != nil {
			n.t.Fatal(err)
		}
	}
	synctest.Wait()
}

// toHost returns all packets the host got so far.
func (n *node) toHost() [][]byte {
	synctest.Wait()
	var out [][]byte
	for {
		select {
		case p := <-n.nic.Packets():
			if p.Offload != (tun.Offload{}) {
				n.t.Errorf("a NIC without offloads was given %+v", p.Offload)
			}
			out = append(out, p.Data)
			synctest.Wait() // there may be more that had no room
		default:
			return out
		}
	}
}

// drops returns the counters that are not zero.
func (n *node) drops() map[string]uint64 {
	synctest.Wait()
	out := map[string]uint64{}
	for reason, count := range n.engine.Stats().Drops {
		if count != 0 {
			out[reason] = count
		}
	}
	return out
}

func (n *node) expectDrops(want map[Reason]uint64) {
	n.t.Helper()
	got := n.drops()
	for reason, count := range want {
		if got[reason.String()] != count {
			n.t.Errorf("%v: counted %d, want %d", reason, got[reason.String()], count)
		}
		delete(got, reason.String())
	}
	if len(got) != 0 {
		n.t.Errorf("other drops: %v", got)
	}
}

var errWire = errors.New("the wire was cut")

// wire is one end of a carrier in memory: what one end sends the other receives.
type wire struct {
	out      chan<- []byte
	in       <-chan []byte
	cut      chan struct{}
	end      func() // cuts it, for both ends
	maxBytes int    // 0: any length fits
}

// newWire returns both ends. Each direction holds that many packets; then its sender is congested.
func newWire(packets int) (x, y *wire) {
	there, back, cut := make(chan []byte, packets), make(chan []byte, packets), make(chan struct{})
	end := sync.OnceFunc(func() { close(cut) })
	return &wire{out: there, in: back, cut: cut, end: end}, &wire{out: back, in: there, cut: cut, end: end}
}

func (w *wire) SendPacket(p []byte) error {
	if w.maxBytes != 0 && len(p) > w.maxBytes {
		return &TooBigError{MaxPacketBytes: w.maxBytes}
	}
	select {
	case <-w.cut:
		return errWire
	default:
	}
	select {
	case w.out <- bytes.Clone(p):
		return nil
	case <-w.cut:
		return errWire
	}
}

func (w *wire) MaxPacketBytes() int { return w.maxBytes }

func (w *wire) ReceivePacket(ctx context.Context) ([]byte, error) {
	select {
	case p := <-w.in:
		return p, nil
	case <-w.cut:
		return nil, errWire
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// take returns what has come to this end so far.
func (w *wire) take() [][]byte {
	synctest.Wait()
	var out [][]byte
	for {
		select {
		case p := <-w.in:
			out = append(out, p)
			synctest.Wait()
		default:
			return out
		}
	}
}

// peerAt attaches a member to a gateway and returns the member's end of the wire.
func (n *node) peerAt(id PeerID) *wire {
	n.t.Helper()
	ours, theirs := newWire(1000)
	n.attach(id, ours)
	return theirs
}

// send lets the member at this end send packets.
func (w *wire) send(t *testing.T, packets ...[]byte) {
	t.Helper()
	for _, p := range packets {
		if err := w.SendPacket(p); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
}

// ip makes a UDP packet with hop limit 64 whose payload says what is given.
func ip(from, to netip.Addr, payload string) []byte { return ipHops(from, to, 64, []byte(payload)) }

func ipHops(from, to netip.Addr, hops byte, payload []byte) []byte {
	const udp = 17
	if from.Is4() {
		h := make([]byte, 28, 28+len(payload))
		h[0], h[8], h[9] = 0x45, hops, udp
		binary.BigEndian.PutUint16(h[2:], uint16(28+len(payload)))
		copy(h[12:], from.AsSlice())
		copy(h[16:], to.AsSlice())
		binary.BigEndian.PutUint16(h[10:], ^onesSum(h[:20]))
		binary.BigEndian.PutUint16(h[24:], uint16(8+len(payload)))
		return append(h, payload...)
	}
	h := make([]byte, 48, 48+len(payload))
	h[0], h[6], h[7] = 0x60, udp, hops
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	copy(h[8:], from.AsSlice())
	copy(h[24:], to.AsSlice())
	binary.BigEndian.PutUint16(h[44:], uint16(8+len(payload)))
	return append(h, payload...)
}

// onesSum is the ones' complement sum of RFC 1071.
func onesSum(b []byte) uint16 {
	var s uint32
	for i := range b {
		s += uint32(b[i]) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

func equalPackets(got [][]byte, want ...[]byte) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			return false
		}
	}
	return true
}

func addressesOf(p []byte) (from, to netip.Addr) {
	if p[0]>>4 == 6 {
		return netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
	}
	return netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
}

// icmpError is what a test expects of an ICMP error.
type icmpError struct {
	from, to netip.Addr
	kind     int
	code     int
	mtu      int    // of a Packet Too Big
	about    []byte // what it quotes the beginning of
}

// isICMP checks that the packets are one error, read by a library that is not ours.
func isICMP(t *testing.T, packets [][]byte, want icmpError) {
	t.Helper()
	if len(packets) != 1 {
		t.Errorf("got %d packets %x, want one ICMP error", len(packets), packets)
		return
	}
	p := packets[0]
	protocol, headerBytes := 1, 20
	if p[0]>>4 == 6 {
		protocol, headerBytes = 58, 40
	}
	from, to := addressesOf(p)
	m, err := icmp.ParseMessage(protocol, p[headerBytes:])
	if err != nil {
		t.Errorf("%x: %v", p, err)
		return
	}
	got := icmpError{from: from, to: to, kind: int(p[headerBytes]), code: m.Code}
	if want.mtu != 0 {
		got.mtu = int(binary.BigEndian.Uint32(p[headerBytes+4:]))
	}
	quote := p[headerBytes+8:]
	if len(quote) == 0 || !bytes.HasPrefix(want.about, quote) {
		t.Errorf("quotes %x, want the beginning of %x", quote, want.about)
	}
	want.about = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
