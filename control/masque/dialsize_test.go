package masque

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// attempt is how a simulated dial with one packet size ends.
type attempt struct {
	after time.Duration
	err   error
}

func TestDialSizes(t *testing.T) {
	lost := &quic.IdleTimeoutError{}
	refused := &quic.TransportError{ErrorCode: 0x12a}
	busy := &quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}
	tooLong := &quic.TransportError{ErrorCode: quic.InternalError}
	never := time.Hour
	for name, c := range map[string]struct {
		attempts  map[uint16]attempt
		giveUp    time.Duration // of the caller, 0 for never
		size      uint16        // 0 for an error
		err       error
		tried     []uint16
		discarded []uint16
		took      time.Duration
	}{
		"first works": {
			attempts: map[uint16]attempt{1320: {after: 50 * time.Millisecond}},
			size:     1320, tried: []uint16{1320}, took: 50 * time.Millisecond,
		},
		"black hole": {
			attempts: map[uint16]attempt{1320: {after: never, err: lost}, 1200: {after: 50 * time.Millisecond}},
			size:     1200, tried: []uint16{1320, 1200}, took: PacketSizeFallbackDelay + 50*time.Millisecond,
		},
		"own link too small": {
			attempts: map[uint16]attempt{1320: {err: tooLong}, 1200: {after: 50 * time.Millisecond}},
			size:     1200, tried: []uint16{1320, 1200}, took: 50 * time.Millisecond,
		},
		"slow path": {
			attempts: map[uint16]attempt{1320: {after: 1500 * time.Millisecond}, 1200: {after: time.Second}},
			size:     1320, tried: []uint16{1320, 1200}, took: 1500 * time.Millisecond,
		},
		"peer refuses": {
			attempts: map[uint16]attempt{1320: {after: 50 * time.Millisecond, err: refused}},
			err:      refused, tried: []uint16{1320}, took: 50 * time.Millisecond,
		},
		"peer is busy": {
			attempts: map[uint16]attempt{1320: {after: 50 * time.Millisecond, err: busy}},
			err:      busy, tried: []uint16{1320}, took: 50 * time.Millisecond,
		},
		"peer refuses the second": {
			attempts: map[uint16]attempt{1320: {after: never}, 1200: {after: 50 * time.Millisecond, err: refused}},
			err:      refused, tried: []uint16{1320, 1200}, took: PacketSizeFallbackDelay + 50*time.Millisecond,
		},
		"both lost": {
			attempts: map[uint16]attempt{
				1320: {after: 5 * time.Second, err: lost}, 1200: {after: 5 * time.Second, err: lost},
			},
			err: lost, tried: []uint16{1320, 1200}, took: PacketSizeFallbackDelay + 5*time.Second,
		},
		"caller gives up": {
			attempts: map[uint16]attempt{1320: {after: never}, 1200: {after: never}},
			giveUp:   3 * time.Second,
			err:      context.DeadlineExceeded, tried: []uint16{1320, 1200}, took: 3 * time.Second,
		},
		"both at once": {
			attempts: map[uint16]attempt{1320: {after: 1100 * time.Millisecond}, 1200: {after: -1}},
			size:     1320, tried: []uint16{1320, 1200}, discarded: []uint16{1200}, took: 1100 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				if c.giveUp > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), c.giveUp)
				}
				defer cancel()
				var mu sync.Mutex
				var tried, discarded []uint16
				start := time.Now()
				conn, size, err := dialSizes(ctx, []uint16{1320, 1200},
					func(ctx context.Context, size uint16) (uint16, error) {
						mu.Lock()
						tried = append(tried, size)
						mu.Unlock()
						a := c.attempts[size]
						if a.after < 0 { // succeeds only after it has lost
							<-ctx.Done()
							return size, nil
						}
						select {
						case <-time.After(a.after):
							return size, a.err
						case <-ctx.Done():
							return 0, context.Cause(ctx)
						}
					},
					func(c uint16) { discarded = append(discarded, c) })
				if size != c.size || conn != c.size || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
					t.Errorf("got %d, %d, %v; want %d, %v", conn, size, err, c.size, c.err)
				}
				if !slices.Equal(tried, c.tried) || !slices.Equal(discarded, c.discarded) {
					t.Errorf("tried %v, discarded %v", tried, discarded)
				}
				if d := time.Since(start); d != c.took {
					t.Errorf("took %v, want %v", d, c.took)
				}
			})
		})
	}
}

// path is a relay between one client and a server that loses datagrams which are too
// long, as a router does whose ICMP is filtered.
type path struct {
	addr       *net.UDPAddr
	limitBytes atomic.Int64
	lost       chan struct{} // receives one for each lost datagram while there is room
}

// smallPath starts a path on which datagrams of up to limitBytes pass.
func smallPath(t *testing.T, server *net.UDPAddr, limitBytes int) *path {
	t.Helper()
	front, back := listenUDP(t), listenUDP(t)
	p := &path{addr: front.LocalAddr().(*net.UDPAddr), lost: make(chan struct{}, 4)}
	p.limitBytes.Store(int64(limitBytes))
	var mu sync.Mutex
	var client netip.AddrPort
	var wg sync.WaitGroup
	relay := func(from, to *net.UDPConn, address func(netip.AddrPort) netip.AddrPort) {
		wg.Go(func() {
			b := make([]byte, 2048)
			for {
				n, sender, err := from.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				receiver := address(sender)
				if int64(n) <= p.limitBytes.Load() {
					_, _ = to.WriteToUDPAddrPort(b[:n], receiver)
					continue
				}
				select {
				case p.lost <- struct{}{}:
				default:
				}
			}
		})
	}
	relay(front, back, func(sender netip.AddrPort) netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		client = sender
		return server.AddrPort()
	})
	relay(back, front, func(netip.AddrPort) netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		return client
	})
	t.Cleanup(func() { _, _ = front.Close(), back.Close(); wg.Wait() })
	return p
}

// A path of 1,378 bytes and one of 1,280 have a handshake and carry packets, the
// first one inner packets of 1,280 bytes from the start.
func TestHandshakeOnSmallPaths(t *testing.T) {
	for _, c := range []struct {
		pathBytes int // of an IPv4 packet
		size      uint16
	}{
		{1448, LargestPacketSize},
		{1447, PreferredPacketSize},
		{1378, PreferredPacketSize},
		{1347, SmallestPacketSize},
		{1280, SmallestPacketSize},
		{1228, SmallestPacketSize},
	} {
		serverTLS, clientTLS := testTLS(t, RequireHybrid)
		g := &gateway{owned: []string{"100.64.0.2/32"}}
		addr := serveHTTP3(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)), serverTLS)
		path := smallPath(t, addr, c.pathBytes-28)
		transport := &quic.Transport{Conn: listenUDP(t), ConnectionIDLength: 8}
		t.Cleanup(func() { _ = transport.Close() })
		conn, size, err := DialPacketSizes(t.Context(), func(ctx context.Context, size uint16) (*quic.Conn, error) {
			return transport.Dial(ctx, path.addr, clientTLS, QUICConfig(size))
		})
		if err != nil || size != c.size {
			t.Fatalf("path of %d: packets of %d, %v", c.pathBytes, size, err)
		}
		s, _, err := Dial(t.Context(), conn, Request{Authority: "g", Header: bearer})
		if err != nil {
			t.Fatalf("path of %d: %v", c.pathBytes, err)
		}
		client, server := runClient(t, s), <-g.sessions
		if c.size >= PreferredPacketSize && (client.MaxPacketSize() < 1280 || server.MaxPacketSize() < 1280) {
			t.Errorf("path of %d: %d up, %d down", c.pathBytes, client.MaxPacketSize(), server.MaxPacketSize())
		}
		for range 20 { // time for the search to go wrong
			if _, err := client.Ping(t.Context(), 0); err != nil {
				t.Fatalf("path of %d: %v", c.pathBytes, err)
			}
		}
		for _, pair := range [][2]*Session{{client.Session, server.Session}, {server.Session, client.Session}} {
			n := pair[0].MaxPacketSize()
			if n+39 > c.pathBytes-28 {
				t.Errorf("path of %d: packets of %d cannot pass", c.pathBytes, n)
			}
			if err := pair[0].SendPacket(packetOf(4, n)); err != nil {
				t.Fatalf("path of %d: packet of %d: %v", c.pathBytes, n, err)
			}
			if p, err := pair[1].ReceivePacket(t.Context()); err != nil || len(p) != n {
				t.Fatalf("path of %d: received %d of %d bytes, %v", c.pathBytes, len(p), n, err)
			}
		}
		if err := conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), ""); err != nil {
			t.Error(err)
		}
	}
}

// A path that becomes too small for full packets under a live session: whoever asks,
// small echoes pass it and padded ones do not.
func TestPaddedPingSeesBlackHole(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	g := &gateway{}
	addr := serveHTTP3(t, NewServer(newGateway(t, HandlerConfig[string]{}, g)), serverTLS)
	path := smallPath(t, addr, 1472)
	conn, err := dialQUIC(t, path.addr, clientTLS, LargestPacketSize)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := Dial(t.Context(), conn, Request{Authority: "g", Header: bearer})
	if err != nil {
		t.Fatal(err)
	}
	client, server := runClient(t, s), <-g.sessions
	for _, r := range []*running{client, server} {
		if _, err := r.Ping(t.Context(), MaxPingPadding); err != nil {
			t.Fatal(err)
		}
		path.limitBytes.Store(int64(LargestPacketSize) - 1)
		for range 5 {
			if _, err := r.Ping(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		answered := make(chan error, 1)
		go func() {
			_, err := r.Ping(t.Context(), MaxPingPadding)
			answered <- err
		}()
		// The full packets of the echo are lost, and so are those that repeat them.
		for range 2 * cap(path.lost) {
			select {
			case <-path.lost:
			case err := <-answered:
				t.Fatalf("a padded echo passed: %v", err)
			}
		}
		path.limitBytes.Store(1472)
		if err := <-answered; err != nil {
			t.Fatalf("on a path that has healed: %v", err)
		}
	}
}

func TestInitialSizes(t *testing.T) {
	s := NewInitialSizes()
	client := netip.MustParseAddrPort("192.0.2.1:4000")
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:4000")
	other := netip.MustParseAddrPort("192.0.2.1:4001")
	long := func(first byte, n int) []byte { b := make([]byte, n); b[0] = first; return b }
	initial := func(n int) []byte { return long(0xc3, n) }
	check := func(when string, want uint16) {
		t.Helper()
		if got := s.PacketSize(mapped); got != want {
			t.Errorf("%s: %d", when, got)
		}
		if got := s.PacketSize(other); got != SmallestPacketSize {
			t.Errorf("%s: another port gets %d", when, got)
		}
	}
	check("at first", SmallestPacketSize)
	s.Observe(client, initial(1319))
	check("1319 bytes", SmallestPacketSize)
	s.Observe(client, initial(1320))
	check("1320 bytes", PreferredPacketSize)
	s.Observe(client, initial(1420))
	check("1420 bytes", LargestPacketSize)
	s.Observe(client, initial(1419))
	check("1419 bytes", PreferredPacketSize)
	for _, b := range [][]byte{{}, initial(1199), long(0x43, 1300), long(0xe3, 1300)} {
		s.Observe(client, b) // none of them an Initial of a client
	}
	check("other packets", PreferredPacketSize)
	s.Observe(client, initial(1200))
	check("a new dial with 1200", SmallestPacketSize)
	for i := range 1 << 16 {
		s.Observe(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1), initial(1400))
	}
	check("after a flood", SmallestPacketSize)
}

func FuzzInitialSizes(f *testing.F) {
	f.Add([]byte{0xc0}, uint16(1400))
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, start []byte, pad uint16) {
		s := NewInitialSizes()
		client := netip.MustParseAddrPort("[2001:db8::1]:4000")
		s.Observe(client, append(start, make([]byte, pad)...))
		if n := s.PacketSize(client); !slices.Contains(packetSizes(), n) {
			t.Fatalf("%d", n)
		}
	})
}
