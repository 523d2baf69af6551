package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// faulty is a kernel that fails where a test says so.
type faulty struct {
	kernel
	// send decides about a datagram, or a row of them if segmented; 0 lets the kernel have it.
	send func(segmented bool) syscall.Errno
	// receive and probe decide about a call.
	receive func() syscall.Errno
	probe   syscall.Errno
	calls   atomic.Int64
	// waits is told, if it is there, when a call finds nothing to do, for which the socket waits next.
	waits chan struct{}
}

// tell passes a call's result on.
func (f *faulty) tell(n int, errno syscall.Errno) (int, syscall.Errno) {
	if errno == unix.EAGAIN && f.waits != nil {
		select {
		case f.waits <- struct{}{}:
		default:
		}
	}
	return n, errno
}

// isSegmented reports whether control messages ask for segmentation.
func isSegmented(h *unix.Msghdr) bool {
	if h.Control == nil {
		return false
	}
	b := unsafe.Slice(h.Control, h.Controllen)
	for len(b) > 0 {
		hdr, _, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			panic(err)
		}
		if hdr.Level == unix.IPPROTO_UDP && hdr.Type == unix.UDP_SEGMENT {
			return true
		}
		b = rest
	}
	return false
}

func (f *faulty) sendmmsg(fd int, hs []mmsghdr) (int, syscall.Errno) {
	if fd < 0 && f.probe != 0 {
		return -1, f.probe
	}
	f.calls.Add(1)
	for i := range hs {
		if f.send == nil {
			break
		}
		if errno := f.send(isSegmented(&hs[i].Msghdr)); errno != 0 && i == 0 {
			return -1, errno
		} else if errno != 0 {
			return f.tell(f.kernel.sendmmsg(fd, hs[:i]))
		}
	}
	return f.tell(f.kernel.sendmmsg(fd, hs))
}

func (f *faulty) recvmmsg(fd int, hs []mmsghdr) (int, syscall.Errno) {
	if fd >= 0 && f.receive != nil {
		if errno := f.receive(); errno != 0 {
			return -1, errno
		}
	}
	return f.tell(f.kernel.recvmmsg(fd, hs))
}

// TestSegmentationRefused: by a network card, in mid-flight. Everything arrives, once, and the socket goes on without.
func TestSegmentationRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EIO, unix.EINVAL, unix.EOPNOTSUPP} {
		for _, batch := range []bool{false, true} {
			left, right := newLink(t, 1500)
			var refuse atomic.Bool
			k := &faulty{kernel: linux{}, send: func(segmented bool) syscall.Errno {
				if segmented && refuse.Load() {
					return errno
				}
				return 0
			}}
			a, b := left.openWith(Config{}, k), right.open(Config{})
			d := to(t, a, at(b, right4))
			arrive(t, a, d, b)
			want := Message{From: at(a, left4), Local: right4, InterfaceIndex: uint32(right.veth.Attrs().Index)}
			for round := range 3 {
				refuse.Store(round > 0)
				data := pattern(45*1000-1, round)
				if batch {
					out := []Outgoing{
						{Data: data[:1000], To: d},
						{Data: data[1000:30000], SegmentBytes: 1000, To: d},
						{Data: data[30000:], SegmentBytes: 1000, To: d},
					}
					if n, err := a.SendBatch(out); n != 3 || err != nil {
						t.Fatalf("%v: %d, %v", errno, n, err)
					}
				} else if err := a.Send(data, 1000, 0, d); err != nil {
					t.Fatalf("%v: %v", errno, err)
				}
				expect(t, b, messages(4), data, 1000, want)
				o := a.Offloads().Segmentation
				if o.On != (round == 0) || !o.On && !strings.Contains(o.Reason, errno.Error()) {
					t.Errorf("%v: %+v", errno, o)
				}
			}
			if s := a.Stats(); s.SegmentationRefused != 1 {
				t.Errorf("%v: %+v", errno, s)
			}
		}
	}
}

// TestSegmentationNotToBlame: where single datagrams fail too, segmentation stays on.
func TestSegmentationNotToBlame(t *testing.T) {
	left, _ := newLink(t, 1500)
	c := left.openWith(Config{}, &faulty{kernel: linux{}, send: func(bool) syscall.Errno { return unix.EINVAL }})
	d := to(t, c, netip.AddrPortFrom(right4, 9))
	var noWay NoWayOutError
	if err := c.Send(make([]byte, 5000), 1000, 0, d); !errors.As(err, &noWay) || !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
	if o := c.Offloads().Segmentation; !o.On {
		t.Errorf("%+v", o)
	}
}

// TestSendErrors: the answer to each error, alone, segmented and in a batch, on both backends where the kernel can be made
// to fail by a seam.
func TestSendErrors(t *testing.T) {
	left, _ := newLink(t, 1500)
	strange := unix.ENOTSOCK
	for _, c := range []struct {
		errno                   syscall.Errno
		want                    error
		lost, noWayOut, tooLong uint64
	}{
		{unix.ENOBUFS, ErrLost, 1, 0, 0},
		{unix.ENOMEM, ErrLost, 1, 0, 0},
		{unix.EMSGSIZE, SizeError(1000), 0, 0, 1},
		{unix.ECONNREFUSED, NoWayOutError(unix.ECONNREFUSED), 0, 1, 0},
		{unix.ENETUNREACH, NoWayOutError(unix.ENETUNREACH), 0, 1, 0},
		{unix.EHOSTUNREACH, NoWayOutError(unix.EHOSTUNREACH), 0, 1, 0},
		{unix.ENETDOWN, NoWayOutError(unix.ENETDOWN), 0, 1, 0},
		{unix.EPERM, NoWayOutError(unix.EPERM), 0, 1, 0},
		{strange, strange, 0, 0, 0},
	} {
		k := &faulty{kernel: linux{}}
		conn := left.openWith(Config{}, k)
		d := to(t, conn, netip.AddrPortFrom(left4, 9))
		check := func(how string, err error, total int) {
			t.Helper()
			s := conn.Stats()
			if !errors.Is(err, c.want) || s.Lost != c.lost*uint64(total) || s.NoWayOut != c.noWayOut || s.TooLong != c.tooLong {
				t.Errorf("%v, %s: %v, %+v", c.errno, how, err, s)
			}
			conn.stats.lost.Store(0)
			conn.stats.noWayOut.Store(0)
			conn.stats.tooLong.Store(0)
		}
		k.send = func(bool) syscall.Errno { return c.errno }
		check("single", conn.Send(make([]byte, 1000), 0, 0, d), 1)
		check("segments", conn.Send(make([]byte, 2500), 1000, 0, d), 3)
		var out []Outgoing
		for _, n := range []int{10, 10, 1000, 10} {
			out = append(out, Outgoing{Data: make([]byte, n), To: d})
		}
		k.send = failAt(2, c.errno)
		n, err := conn.SendBatch(out)
		if n != 2 {
			t.Errorf("%v: %d sent before", c.errno, n)
		}
		check("batch", err, 1)
		conn.backend.(*batch).stopSegmentation("test")
		k.send = func(bool) syscall.Errno { return c.errno }
		check("singly", conn.Send(make([]byte, 2500), 1000, 0, d), 3)
		k.send = nil
		if err := conn.Send(make([]byte, 2500), 1000, 0, d); err != nil { // as good as before
			t.Errorf("after %v: %v", c.errno, err)
		}
	}
}

// failAt fails for the datagram of an index, however often it is tried.
func failAt(index int, errno syscall.Errno) func(bool) syscall.Errno {
	i := 0
	return func(bool) syscall.Errno {
		if i++; i > index {
			i = index
			return errno
		}
		return 0
	}
}

// TestInterrupted: calls that a signal interrupts are made again.
func TestInterrupted(t *testing.T) {
	left, right := newLink(t, 1500)
	once := func() func() syscall.Errno {
		var n atomic.Int64
		return func() syscall.Errno {
			if n.Add(1)%2 == 1 {
				return unix.EINTR
			}
			return 0
		}
	}
	sends, receives := once(), once()
	a := left.openWith(Config{}, &faulty{kernel: linux{}, send: func(bool) syscall.Errno { return sends() }})
	b := right.openWith(Config{}, &faulty{kernel: linux{}, receive: receives})
	d := to(t, a, at(b, right4))
	arrive(t, a, d, b)
	if n, err := a.SendBatch([]Outgoing{{Data: []byte("x"), To: d}}); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	ms := messages(1)
	if _, err := b.Receive(ms); err != nil || string(ms[0].Data) != "x" {
		t.Errorf("%q, %v", ms[0].Data, err)
	}
}

// TestReceiveErrors: what the network says of others passes; anything else ends the receiver.
func TestReceiveErrors(t *testing.T) {
	left, _ := newLink(t, 1500)
	errnos := []syscall.Errno{unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.EMSGSIZE, unix.EBADF}
	i := -1
	c := left.openWith(Config{}, &faulty{kernel: linux{}, receive: func() syscall.Errno { i++; return errnos[i] }})
	if _, err := c.Receive(messages(1)); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v", err)
	}
	if s := c.Stats(); s.ReceiveErrors != 3 {
		t.Errorf("%+v", s)
	}
}

// TestWithoutBatchCalls: a sandbox that forbids them, or a kernel that has never heard of them.
func TestWithoutBatchCalls(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM} {
		left, right := newLink(t, 1500)
		a := left.openWith(Config{}, &faulty{kernel: linux{}, probe: errno})
		b := right.open(Config{})
		d := to(t, a, at(b, right4))
		arrive(t, a, d, b)
		data := pattern(5000, 1)
		if err := a.Send(data, 1000, 3, d); err != nil {
			t.Fatal(err)
		}
		expect(t, b, messages(2), data, 1000, Message{
			From: at(a, left4), Local: right4, InterfaceIndex: uint32(right.veth.Attrs().Index), ECN: 3,
		})
		for _, o := range []Offload{a.Offloads().Batch, a.Offloads().Coalescing, a.Offloads().Segmentation} {
			if o.On || !strings.Contains(o.Reason, errno.Error()) {
				t.Errorf("%+v", o)
			}
		}
	}
}

// TestTooLong: the kernel says that a datagram does not fit the link, segmented or not.
func TestTooLong(t *testing.T) {
	for name, cfg := range modes {
		left, right := newLink(t, 1300)
		a, b := left.open(cfg), right.open(cfg)
		for _, address := range []netip.Addr{right4, right6} {
			d := to(t, a, at(b, address))
			arrive(t, a, d, b)
			for _, segmentBytes := range []int{0, 1299} {
				var size SizeError
				b := make([]byte, max(1299, segmentBytes*10))
				if err := a.Send(b, segmentBytes, 0, d); !errors.As(err, &size) || size != 1299 {
					t.Errorf("%s, %v, %d: %v", name, address, segmentBytes, err)
				}
				n, err := a.SendBatch([]Outgoing{{Data: b, SegmentBytes: segmentBytes, To: d}})
				if n != 0 || !errors.As(err, &size) || size != 1299 {
					t.Errorf("%s, %v, %d, batch: %d, %v", name, address, segmentBytes, n, err)
				}
			}
		}
		if o := a.Offloads().Segmentation; o.On != (!cfg.WithoutBatch && !cfg.WithoutSegmentation) {
			t.Errorf("%s: %+v", name, o)
		}
		for _, n := range []int{MaxSendBytes + 1, 1 << 17} {
			var size SizeError
			d := to(t, a, at(b, right4))
			if err := a.Send(make([]byte, n), 0, 0, d); !errors.As(err, &size) || int(size) != n {
				t.Errorf("%s: %d bytes: %v", name, n, err)
			}
			if _, err := a.SendBatch([]Outgoing{{Data: make([]byte, n), To: d}}); !errors.As(err, &size) || int(size) != n {
				t.Errorf("%s: %d bytes in a batch: %v", name, n, err)
			}
		}
	}
}

// TestNoWayOut: what the kernel really says, and that it passes.
func TestNoWayOut(t *testing.T) {
	for _, cfg := range []Config{{}, {WithoutBatch: true}} {
		left, right := newLink(t, 1500)
		a, b := left.open(cfg), right.open(cfg)
		d := to(t, a, at(b, right4))
		arrive(t, a, d, b)
		far := netip.MustParseAddr("192.0.2.1")
		route := &netlink.Route{Dst: &net.IPNet{IP: far.AsSlice(), Mask: net.CIDRMask(32, 32)}}
		for _, c := range []struct {
			kind int
			want syscall.Errno
		}{
			{0, unix.ENETUNREACH},
			{unix.RTN_UNREACHABLE, unix.EHOSTUNREACH},
			{unix.RTN_PROHIBIT, unix.EACCES},
			{unix.RTN_BLACKHOLE, unix.EINVAL},
		} {
			if route.Type = c.kind; c.kind != 0 {
				left.do(func() error { return left.handle.RouteReplace(route) })
			}
			for _, segmentBytes := range []int{0, 100} {
				var noWay NoWayOutError
				err := a.Send(make([]byte, 1000), segmentBytes, 0, to(t, a, netip.AddrPortFrom(far, 9)))
				if !errors.As(err, &noWay) || !errors.Is(err, c.want) {
					t.Errorf("route type %d: %v", c.kind, err)
				}
			}
		}
		// A source address that is not the host's.
		d, err := a.NewDestination(at(b, right6), other6, 0)
		if err != nil {
			t.Fatal(err)
		}
		var noWay NoWayOutError
		if err := a.Send([]byte("x"), 0, 0, d); !errors.As(err, &noWay) {
			t.Errorf("foreign source: %v", err)
		}
		left.do(func() error { return left.handle.LinkSetDown(left.veth) })
		d = to(t, a, at(b, right4))
		if err := a.Send([]byte("x"), 0, 0, d); !errors.As(err, &noWay) {
			t.Errorf("link down: %v", err)
		}
		left.do(func() error { return left.handle.LinkSetUp(left.veth) })
		arrive(t, a, d, b)
		if o := a.Offloads().Segmentation; o.On == cfg.WithoutBatch {
			t.Errorf("%+v", o)
		}
	}
}

// slow puts a token bucket in front of a link.
func (h *host) slow(bytesPerSecond uint64) {
	h.t.Helper()
	h.do(func() error {
		err := h.handle.QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: h.veth.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
			},
			Rate: bytesPerSecond, Limit: 10 << 20, Buffer: netlink.Xmittime(bytesPerSecond, 2000),
		})
		if errors.Is(err, unix.ENOENT) {
			if _, statErr := os.Stat("/sys/module/sch_tbf"); statErr == nil {
				return err
			}
			h.t.Skip("this kernel has no token bucket (sch_tbf)")
		}
		return err
	})
}

// TestFullBuffer: sends wait for room in the socket's buffer, and nothing is lost. The order is not the socket's affair:
// the token bucket sends what has waited from another processor than that of the sender.
func TestFullBuffer(t *testing.T) {
	for name, cfg := range modes {
		left, right := newLink(t, 1500)
		cfg.SendBufferBytes = 1 // the kernel's least
		a, b := left.open(cfg), right.open(cfg)
		d := to(t, a, at(b, right4))
		arrive(t, a, d, b)
		left.slow(10 << 20)
		data := pattern(400*1000, 3)
		sent := make(chan error, 1)
		go func() {
			if err := a.Send(data[:100*1000], 1000, 0, d); err != nil {
				sent <- err
				return
			}
			var out []Outgoing
			for chunk := range sliced(data[100*1000:], 1000) {
				out = append(out, Outgoing{Data: chunk, To: d})
			}
			_, err := a.SendBatch(out)
			sent <- err
		}()
		want := Message{From: at(a, left4), Local: right4, InterfaceIndex: uint32(right.veth.Attrs().Index)}
		missing := make(map[string]int)
		for chunk := range sliced(data, 1000) {
			missing[string(chunk)]++
		}
		for ms := messages(2); len(missing) > 0; {
			n, err := b.Receive(ms)
			if err != nil {
				t.Fatal(err)
			}
			for i := range ms[:n] {
				m := &ms[i]
				checkTold(t, b, m, 1000, want)
				for datagram := range sliced(m.Data, m.SegmentBytes) {
					switch missing[string(datagram)] {
					case 0:
						t.Fatalf("%s: %d bytes that were not sent, or not as often", name, len(datagram))
					case 1:
						delete(missing, string(datagram))
					default:
						missing[string(datagram)]--
					}
				}
			}
		}
		if err := <-sent; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s := a.Stats(); s.WaitsForRoom == 0 && !cfg.WithoutBatch || s.Lost != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func sliced(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 && yield(b[:min(n, len(b))]) {
			b = b[min(n, len(b)):]
		}
	}
}

// TestCloseEndsSend: one that waits for room.
func TestCloseEndsSend(t *testing.T) {
	for _, how := range []string{"Send", "SendBatch", "WriteMsgUDP"} {
		left, right := newLink(t, 1500)
		k := &faulty{kernel: linux{}, waits: make(chan struct{}, 1)}
		a, b := left.openWith(Config{SendBufferBytes: 1}, k), right.open(Config{})
		d := to(t, a, at(b, right4))
		arrive(t, a, d, b)
		left.slow(300) // a packet in 3 s
		ended := make(chan error)
		go func() {
			for {
				var err error
				switch x := bytes.Repeat([]byte("x"), 1000); how {
				case "Send":
					err = a.Send(x, 0, 0, d)
				case "SendBatch":
					_, err = a.SendBatch([]Outgoing{{Data: x, To: d}, {Data: x, To: d}})
				default:
					_, _, err = a.QUIC().WriteMsgUDP(x, nil, net.UDPAddrFromAddrPort(d.To()))
				}
				if err != nil {
					ended <- err
					return
				}
			}
		}()
		<-k.waits
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", how, err)
		}
	}
}
