package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// modes are the ways of moving datagrams, each of which is some host's fallback.
var modes = map[string]Config{
	"all":                  {},
	"without segmentation": {WithoutSegmentation: true},
	"without coalescing":   {WithoutCoalescing: true},
	"only batches":         {WithoutSegmentation: true, WithoutCoalescing: true},
	"without batches":      {WithoutBatch: true},
}

// pattern is n bytes that say where in a message they stand.
func pattern(n int, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed + i*7 + i>>8)
	}
	return b
}

// checkTold checks what is told of a message of datagrams of a length, the last of which may be shorter.
func checkTold(t *testing.T, c *Conn, m *Message, segmentBytes int, want Message) {
	t.Helper()
	told := Message{From: m.From, Local: m.Local, InterfaceIndex: m.InterfaceIndex, ECN: m.ECN}
	if !reflect.DeepEqual(told, want) {
		t.Fatalf("got %+v, want %+v", told, want)
	}
	// Whether the time is told depends on nothing but the way of receiving, and it is that of this test.
	if age := time.Now().UnixNano() - m.ArrivedNanos; c.Offloads().Batch.On && (age < 0 || age > int64(time.Minute)) {
		t.Fatalf("arrived %v ago", time.Duration(age))
	}
	if n := m.Datagrams(); n > 1 && m.SegmentBytes != segmentBytes || n == 1 && m.SegmentBytes != len(m.Data) {
		t.Fatalf("%d bytes in segments of %d", len(m.Data), m.SegmentBytes)
	}
}

// expect receives datagrams until all of data has come, and checks what is told of each.
func expect(t *testing.T, c *Conn, ms []Message, data []byte, segmentBytes int, want Message) {
	t.Helper()
	for len(data) > 0 {
		n, err := c.Receive(ms)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ms[:n] {
			m := &ms[i]
			checkTold(t, c, m, segmentBytes, want)
			if len(m.Data) > len(data) || !bytes.Equal(m.Data, data[:len(m.Data)]) {
				t.Fatalf("%d bytes differ, or are not the next of %d", len(m.Data), len(data))
			}
			if len(m.Data)%segmentBytes != 0 && len(m.Data) != len(data) {
				t.Fatalf("a datagram of %d, which is not the last", len(m.Data)%segmentBytes)
			}
			data = data[len(m.Data):]
		}
	}
}

// TestRoundTrip: what Send cuts arrives whole, in order, with ECN and addresses, whatever offloads either side has.
func TestRoundTrip(t *testing.T) {
	for name, cfg := range modes {
		for _, family := range []struct {
			name, address string
			from, to      netip.Addr
		}{
			{"IPv4", "0.0.0.0:0", left4, right4},
			{"IPv6", "[::]:0", left6, right6},
			{"IPv4 on both", "", left4, right4},
			{"IPv6 on both", "", left6, right6},
		} {
			t.Run(name+"/"+family.name, func(t *testing.T) {
				cfg := cfg
				if family.address != "" {
					cfg.Address = netip.MustParseAddrPort(family.address)
				}
				left, right := newLink(t, 1500)
				a, b := left.open(cfg), right.open(cfg)
				d := to(t, a, at(b, family.to))
				arrive(t, a, d, b)
				ms := messages(8)
				want := Message{From: at(a, family.from), Local: family.to}
				if want.InterfaceIndex = uint32(right.veth.Attrs().Index); want.InterfaceIndex == 0 {
					t.Fatal("no interface")
				}
				before := b.Stats()
				total := 0
				for segments := 1; segments <= 45; segments++ {
					want.ECN = uint8(segments % 4)
					data := pattern(segments*1440-segments*3, segments) // the last is shorter
					if err := a.Send(data, 1440, want.ECN, d); err != nil {
						t.Fatal(err)
					}
					expect(t, b, ms, data, 1440, want)
					total += datagrams(len(data), 1440)
				}
				after := b.Stats()
				if n := after.ReceivedDatagrams - before.ReceivedDatagrams; n != uint64(total) {
					t.Errorf("%d datagrams counted, %d sent", n, total)
				}
				received := after.ReceivedMessages - before.ReceivedMessages
				switch o := b.Offloads(); {
				case cfg.WithoutBatch != !o.Batch.On, (cfg.WithoutBatch || cfg.WithoutCoalescing) != !o.Coalescing.On,
					(cfg.WithoutBatch || cfg.WithoutSegmentation) != !o.Segmentation.On:
					t.Errorf("offloads %+v", o)
				case o.Coalescing.On && o.Segmentation.On && received != 45:
					t.Errorf("%d messages for 45 sends", received)
				case !o.Coalescing.On && received != uint64(total):
					t.Errorf("%d messages for %d datagrams", received, total)
				}
			})
		}
	}
}

// TestLongSend: a send past the kernel's limits is several.
func TestLongSend(t *testing.T) {
	left, right := newLink(t, 1500)
	a, b := left.open(Config{}), right.open(Config{})
	d := to(t, a, at(b, right4))
	arrive(t, a, d, b)
	want := Message{From: at(a, left4), Local: right4, InterfaceIndex: uint32(right.veth.Attrs().Index), ECN: 1}
	for _, c := range []struct{ bytes, segmentBytes, calls int }{
		{64 * 100, 100, 1},
		{65*100 - 1, 100, 2},
		{45 * 1452, 1452, 1},
		{45*1452 + 1, 1452, 2},
		{200 * 1400, 1400, 5},
		{0xffff * 3, 1, 0xffff * 3 / 64},
	} {
		if c.segmentBytes == 1 {
			c.bytes, c.calls = 64*3+1, 4
		}
		data, before := pattern(c.bytes, 1), a.Stats()
		if err := a.Send(data, c.segmentBytes, 1, d); err != nil {
			t.Fatal(err)
		}
		expect(t, b, messages(4), data, c.segmentBytes, want)
		after := a.Stats()
		if calls := after.SendCalls - before.SendCalls; calls != uint64(c.calls) {
			t.Errorf("%+v: %d calls", c, calls)
		}
		if n := after.SentDatagrams - before.SentDatagrams; n != uint64(datagrams(c.bytes, c.segmentBytes)) {
			t.Errorf("%+v: %d datagrams", c, n)
		}
		if n := after.SentBytes - before.SentBytes; n != uint64(c.bytes) {
			t.Errorf("%+v: %d bytes", c, n)
		}
	}
}

// TestSendBatch: datagrams and rows of them, of different sizes and to different places, in one call and in order.
func TestSendBatch(t *testing.T) {
	for name, cfg := range modes {
		t.Run(name, func(t *testing.T) {
			left, right := newLink(t, 1500)
			a, b, c := left.open(cfg), right.open(cfg), right.open(cfg)
			ds := []*Destination{to(t, a, at(b, right4)), to(t, a, at(c, other6))}
			arrive(t, a, ds[0], b)
			arrive(t, a, ds[1], c)
			var out []Outgoing
			for i := range 150 {
				size, segmentBytes := 64+i, 0
				if i%10 == 9 {
					size, segmentBytes = 40*1000, 1000
				}
				if i%50 == 49 {
					size, segmentBytes = 100*1000, 1000 // several calls
				}
				o := Outgoing{Data: pattern(size, i), SegmentBytes: segmentBytes, ECN: uint8(i), To: ds[i%2]}
				out = append(out, o)
			}
			before := a.Stats().SendCalls
			if n, err := a.SendBatch(out); n != len(out) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			ms := messages(1)
			for i, o := range out {
				into, want := b, Message{From: at(a, left4), Local: right4}
				if i%2 == 1 {
					into, want = c, Message{From: at(a, left6), Local: other6}
				}
				want.InterfaceIndex, want.ECN = uint32(right.veth.Attrs().Index), uint8(i)&3
				expect(t, into, ms, o.Data, o.segmentBytes(), want)
			}
			// Of each 50 the last takes 2 calls with segmentation and is not in the batch of the others.
			if n := a.Stats().SendCalls - before; !cfg.WithoutBatch && !cfg.WithoutSegmentation && n != 3*3 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// TestReplyLeavesFromAddress: of a host with several addresses.
func TestReplyLeavesFromAddress(t *testing.T) {
	for name, cfg := range map[string]Config{"batch": {}, "without": {WithoutBatch: true}} {
		t.Run(name, func(t *testing.T) {
			left, right := newLink(t, 1500)
			a, b := left.open(cfg), right.open(cfg)
			for _, address := range []netip.Addr{right4, other4, right6, other6} {
				d := to(t, a, at(b, address))
				arrive(t, a, d, b)
				if err := a.Send([]byte("x"), 0, 0, d); err != nil {
					t.Fatal(err)
				}
				ms := messages(1)
				if _, err := b.Receive(ms); err != nil {
					t.Fatal(err)
				}
				reply, err := b.NewDestination(ms[0].From, ms[0].Local, ms[0].InterfaceIndex)
				if err != nil {
					t.Fatal(err)
				}
				data := pattern(5000, 9)
				if err := b.Send(data, 1000, 2, reply); err != nil {
					t.Fatal(err)
				}
				local := left4
				if address.Is6() {
					local = left6
				}
				expect(t, a, messages(2), data, 1000, Message{
					From: at(b, address), Local: local, InterfaceIndex: uint32(left.veth.Attrs().Index), ECN: 2,
				})
			}
		})
	}
}

// TestLinkLocal: an answer to a link-local address goes out through its interface.
func TestLinkLocal(t *testing.T) {
	left, right := newLink(t, 1500)
	a, b := left.open(Config{}), right.open(Config{})
	d := to(t, a, at(b, right6))
	arrive(t, a, d, b)
	addresses, err := right.handle.AddrList(right.veth, unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	var local netip.Addr
	for _, addr := range addresses {
		if ip, _ := netip.AddrFromSlice(addr.IP); ip.IsLinkLocalUnicast() {
			local = ip.WithZone(fmt.Sprint(left.veth.Attrs().Index))
		}
	}
	if !local.IsValid() {
		t.Fatalf("no link-local address in %v", addresses)
	}
	d = to(t, a, at(b, local))
	arrive(t, a, d, b)
	if err := a.Send([]byte("x"), 0, 0, d); err != nil {
		t.Fatal(err)
	}
	ms := messages(1)
	if _, err := b.Receive(ms); err != nil {
		t.Fatal(err)
	}
	if zone := ms[0].From.Addr().Zone(); zone != fmt.Sprint(right.veth.Attrs().Index) {
		t.Errorf("from %v", ms[0].From)
	}
	if err := b.Send([]byte("y"), 0, 0, to(t, b, ms[0].From)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Receive(ms); err != nil || ms[0].From != at(b, local) {
		t.Errorf("answer from %v, %v", ms[0].From, err)
	}
	var noWay NoWayOutError // through the interface that is said, and no other
	if err := a.Send([]byte("x"), 0, 0, to(t, a, at(b, local.WithZone("lo")))); !errors.As(err, &noWay) {
		t.Errorf("through lo: %v", err)
	}
	if _, err := a.NewDestination(at(b, local.WithZone("nosuch0")), netip.Addr{}, 0); err == nil {
		t.Error("a zone that is no interface")
	}
}

// TestFamilies: a socket does not take addresses that it cannot send to.
func TestFamilies(t *testing.T) {
	left, _ := newLink(t, 1500)
	v4 := left.open(Config{Address: netip.MustParseAddrPort("0.0.0.0:0")})
	v6 := left.open(Config{Address: netip.MustParseAddrPort("[::]:0")})
	both := left.open(Config{})
	for _, c := range []struct {
		conn   *Conn
		to     netip.Addr
		from   netip.Addr
		refuse bool
	}{
		{v4, right4, netip.Addr{}, false},
		{v4, right6, netip.Addr{}, true},
		{v4, netip.AddrFrom16(right4.As16()), netip.Addr{}, false},
		{v6, right6, left6, false},
		{v6, right4, netip.Addr{}, true},
		{both, right4, netip.AddrFrom16(left4.As16()), false},
		{both, right6, left6, false},
		{both, right6, left4, true},
		{both, netip.Addr{}, netip.Addr{}, true},
	} {
		d, err := c.conn.NewDestination(netip.AddrPortFrom(c.to, 9), c.from, 0)
		if errors.Is(err, ErrFamily) != c.refuse || !c.refuse && err != nil {
			t.Errorf("%v from %v: %v", c.to, c.from, err)
		}
		if err == nil && (d.To().Addr() != c.to.Unmap()) {
			t.Errorf("%v: to %v", c.to, d.To())
		}
	}
}

// TestOptions: DF, buffers, and what Open says of addresses that it cannot have.
func TestOptions(t *testing.T) {
	left, _ := newLink(t, 1500)
	for _, cfg := range []Config{{Mark: 7}, {Mark: 7, WithoutBatch: true}} {
		cfg.ReceiveBufferBytes, cfg.SendBufferBytes = 300_000, 200_000
		c := left.open(cfg)
		for _, option := range []struct{ level, name, want int }{
			{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
			{unix.SOL_SOCKET, unix.SO_MARK, 7},
			{unix.SOL_SOCKET, unix.SO_RCVBUF, 600_000},
			{unix.SOL_SOCKET, unix.SO_SNDBUF, 400_000},
		} {
			var got int
			var optErr error
			err := c.backend.descriptor(func(fd uintptr) {
				got, optErr = unix.GetsockoptInt(int(fd), option.level, option.name)
			})
			if err != nil || optErr != nil || got != option.want {
				t.Errorf("%+v: %d, %v, %v", option, got, err, optErr)
			}
		}
		if o := c.Offloads(); o.ReceiveBufferBytes != 600_000 || o.SendBufferBytes != 400_000 {
			t.Errorf("%+v", o)
		}
		o := left.open(Config{}).Offloads()
		if o.ReceiveBufferBytes < defaultBufferBytes || o.SendBufferBytes < defaultBufferBytes {
			t.Errorf("%+v", o)
		}
	}
	first := left.open(Config{Address: netip.MustParseAddrPort("10.7.0.1:0")})
	left.do(func() error {
		for address, want := range map[string]error{"10.7.0.9:0": ErrAddress, first.LocalAddr().String(): ErrPortInUse} {
			if _, err := Open(t.Context(), Config{Address: netip.MustParseAddrPort(address)}); !errors.Is(err, want) {
				t.Errorf("%s: %v", address, err)
			}
		}
		return nil
	})
}

// TestClose: Close ends a Receive, and everything after it says ErrClosed.
func TestClose(t *testing.T) {
	for _, cfg := range []Config{{}, {WithoutBatch: true}} {
		left, _ := newLink(t, 1500)
		k := &faulty{kernel: linux{}, waits: make(chan struct{}, 1)}
		c := left.openWith(cfg, k)
		d := to(t, c, at(c, left4))
		ended := make(chan error)
		go func() {
			_, err := c.Receive(messages(1))
			ended <- err
		}()
		if !cfg.WithoutBatch {
			<-k.waits
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("receive: %v", err)
		}
		if _, err := c.Receive(messages(1)); !errors.Is(err, ErrClosed) {
			t.Errorf("later receive: %v", err)
		}
		if err := c.Send([]byte("x"), 0, 0, d); !errors.Is(err, ErrClosed) {
			t.Errorf("send: %v", err)
		}
		if _, err := c.SendBatch([]Outgoing{{Data: []byte("x"), To: d}}); !errors.Is(err, ErrClosed) {
			t.Errorf("send batch: %v", err)
		}
		addr := &net.UDPAddr{IP: net.IPv4(10, 7, 0, 2), Port: 9}
		if _, _, err := c.QUIC().WriteMsgUDP([]byte("x"), nil, addr); !errors.Is(err, net.ErrClosed) {
			t.Errorf("QUIC write: %v", err)
		}
		if _, _, err := c.QUIC().ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("QUIC read: %v", err)
		}
		if err := c.QUIC().SetReadDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("deadline: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	}
}

func TestShortBuffer(t *testing.T) {
	left, _ := newLink(t, 1500)
	c := left.open(Config{})
	if _, err := c.Receive([]Message{{Data: make([]byte, 1500)}}); !errors.Is(err, ErrShortBuffer) {
		t.Errorf("got %v", err)
	}
	if n, err := c.Receive(nil); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
}
