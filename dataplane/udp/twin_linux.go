package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNoRaw is why there is no twin.
var errNoRaw = errors.New("not permitted: give the process CAP_NET_RAW")

// rawTwin makes fragments itself, and sends them through a raw socket. A second UDP socket on the port would have the
// kernel make them, but as long as the interface takes, for routers to make smaller ones; and it would have to be kept
// from receiving.
type rawTwin struct {
	local netip.AddrPort

	mu    sync.Mutex // guards the rest
	raw   int        // sends only: nobody else speaks protocol 255
	probe int        // connected to learn how the kernel would send
	id    uint16     // of the last datagram
	buf   []byte     // datagram, and one fragment
}

// openTwin makes the twin of a socket that is bound to an address.
func openTwin(cfg Config, local netip.AddrPort) (twin, error) {
	t := &rawTwin{local: local, raw: -1, probe: -1, id: uint16(os.Getpid())}
	if err := t.open(cfg.Mark); err != nil {
		_ = t.close() // the first error says what is wrong
		if errors.Is(err, os.ErrPermission) {
			err = errNoRaw
		}
		return nil, err
	}
	return t, nil
}

func (t *rawTwin) open(mark uint32) (err error) {
	t.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("make raw socket: %w", err)
	}
	t.probe, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	return errors.Join(SetMark(rawDescriptor(t.raw), mark), SetMark(rawDescriptor(t.probe), mark))
}

// rawDescriptor is a descriptor for options that is closed by nobody else.
type rawDescriptor int

func (d rawDescriptor) Control(f func(fd uintptr)) error { f(uintptr(d)); return nil }
func (rawDescriptor) Read(func(fd uintptr) bool) error   { return errNoRawIO }
func (rawDescriptor) Write(func(fd uintptr) bool) error  { return errNoRawIO }

func (t *rawTwin) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, fd := range []*int{&t.raw, &t.probe} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
		}
		*fd = -1
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close raw socket: %w", err)
	}
	return nil
}

func (t *rawTwin) send(b, control []byte, to netip.AddrPort) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.raw < 0 {
		return &net.OpError{Op: "write", Net: "udp", Err: net.ErrClosed}
	}
	if err := t.sendLocked(b, control, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())); err != nil {
		return &net.OpError{
			Op: "write", Net: "udp", Source: net.UDPAddrFromAddrPort(t.local), Addr: net.UDPAddrFromAddrPort(to),
			Err: os.NewSyscallError("sendmsg", err),
		}
	}
	return nil
}

func (t *rawTwin) sendLocked(b, control []byte, to netip.AddrPort) error {
	how := parseSendControl(control)
	from := how.from
	if bound := t.local.Addr(); !from.IsValid() && bound.Is4() && !bound.IsUnspecified() {
		from = bound
	}
	if !from.IsValid() {
		var err error
		if from, err = t.source(to); err != nil {
			return err
		}
	}
	t.id++
	flow := fragmentFlow{from: netip.AddrPortFrom(from, t.local.Port()), to: to, id: t.id, tos: how.tos}
	t.buf = flow.appendUDP(t.buf[:0], b)
	datagram := len(t.buf)
	for offset := 0; ; {
		t.buf, offset = flow.appendFragment(t.buf[:datagram], t.buf[:datagram], offset)
		_, err := unix.SendmsgN(t.raw, t.buf[datagram:], how.route, &unix.SockaddrInet4{Addr: to.Addr().As4()}, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
			return nil // no room: lost
		case err != nil || offset == 0:
			return err
		}
	}
}

// source returns the address that the kernel would send from.
func (t *rawTwin) source(to netip.AddrPort) (netip.Addr, error) {
	if err := t.connect(to); err != nil {
		return netip.Addr{}, err
	}
	name, err := unix.Getsockname(t.probe)
	if err != nil {
		return netip.Addr{}, err
	}
	bound, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return netip.Addr{}, unix.EAFNOSUPPORT
	}
	return netip.AddrFrom4(bound.Addr), nil
}

// connect connects the probe. The kernel keeps an address that it chose for another peer, until the socket is told to
// have none.
func (t *rawTwin) connect(to netip.AddrPort) error {
	nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(t.probe), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	if errno != 0 {
		return errno
	}
	return unix.Connect(t.probe, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
}

func (t *rawTwin) heardMTU(to netip.AddrPort) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if t.probe < 0 || !to.Addr().Is4() || t.connect(to) != nil {
		return 0
	}
	mtu, err := unix.GetsockoptInt(t.probe, unix.IPPROTO_IP, unix.IP_MTU)
	if err != nil {
		return 0
	}
	return mtu
}

// sendControl is what control messages say about a send.
type sendControl struct {
	from  netip.Addr
	tos   uint8
	route []byte // the message that says from and the interface, as it is
}

// controlMessages calls f with each of some control messages: as it is, with what belongs to it, and its data.
func controlMessages(b []byte, f func(whole []byte, level, kind int32, data []byte)) {
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return
		}
		f(b[:len(b)-len(rest)], h.Level, h.Type, data)
		b = rest
	}
}

func parseSendControl(b []byte) (c sendControl) {
	controlMessages(b, func(whole []byte, level, kind int32, data []byte) {
		switch {
		case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(data) >= 1:
			c.tos = data[0]
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= packetInfo4Bytes:
			c.route = whole
			if from := netip.AddrFrom4([4]byte(data[4:8])); !from.IsUnspecified() {
				c.from = from
			}
		}
	})
	return c
}

// sentSegment returns the length of the datagrams that a write is cut into (UDP_SEGMENT).
func sentSegment(control, b []byte) int {
	bytes := len(b)
	controlMessages(control, func(_ []byte, level, kind int32, data []byte) {
		if level == unix.IPPROTO_UDP && kind == unix.UDP_SEGMENT && len(data) >= 2 {
			if n := int(binary.NativeEndian.Uint16(data)); n > 0 {
				bytes = min(bytes, n)
			}
		}
	})
	return bytes
}

// withoutSegment returns control messages without the one of UDP_SEGMENT.
func withoutSegment(control []byte) []byte {
	kept := make([]byte, 0, len(control))
	controlMessages(control, func(whole []byte, level, kind int32, _ []byte) {
		if level != unix.IPPROTO_UDP || kind != unix.UDP_SEGMENT {
			kept = append(kept, whole...)
		}
	})
	return slices.Clip(kept)
}

var _ syscall.RawConn = rawDescriptor(0)
