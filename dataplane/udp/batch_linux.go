package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// batch is a socket with recvmmsg, sendmmsg, UDP_GRO and UDP_SEGMENT.
type batch struct {
	kernel kernel
	fd     int
	gate   *gate

	ipv4, ipv6 bool
	address    netip.AddrPort
	stats      *counters

	// segmentation says whether, and segmentationOff why not, which is written before it.
	segmentation    atomic.Bool
	segmentationOff atomic.Pointer[string]
	coalescing      Offload

	// receiver belongs to the goroutine that receives.
	receiver *receiver
	// senders keeps *sender for the goroutines that send.
	senders sync.Pool
}

// sender returns one that nobody else has; it goes back into senders.
func (b *batch) sender() *sender {
	return b.senders.Get().(*sender) //nolint:forcetypeassert // the pool's New
}

func openBatch(cfg Config, stats *counters, k kernel) (*batch, error) {
	b := &batch{kernel: k, gate: newGate(), stats: stats, receiver: newReceiver()}
	b.senders.New = func() any { return newSender() }
	if err := b.open(cfg); err != nil {
		_, address := where(cfg.Address)
		return nil, fmt.Errorf("listen on UDP %s: %w", address, bindError(err))
	}
	if err := b.configure(cfg); err != nil {
		return nil, errors.Join(err, b.closeDescriptor())
	}
	return b, nil
}

// open makes the socket and binds it, as Config.Address says.
func (b *batch) open(cfg Config) error {
	addr, port := cfg.Address.Addr().Unmap(), cfg.Address.Port()
	if addr.IsValid() {
		return b.bind(netip.AddrPortFrom(addr, port), false, cfg.Mark)
	}
	err := b.bind(netip.AddrPortFrom(netip.IPv6Unspecified(), port), true, cfg.Mark)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // a host without IPv6
		return b.bind(netip.AddrPortFrom(netip.IPv4Unspecified(), port), false, cfg.Mark)
	}
	return err
}

func (b *batch) bind(address netip.AddrPort, both bool, mark uint32) (err error) {
	b.ipv6, b.ipv4 = address.Addr().Is6(), address.Addr().Is4() || both
	family := unix.AF_INET
	if b.ipv6 {
		family = unix.AF_INET6
	}
	// Not SOCK_NONBLOCK: the receiver sleeps in recvmmsg itself, which saves two calls per wake-up. What sends says
	// MSG_DONTWAIT.
	b.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(b.fd))
		}
	}()
	if err := SetMark(rawConn{b}, mark); err != nil {
		return err
	}
	if b.ipv6 {
		only := 1
		if both {
			only = 0
		}
		if err := unix.SetsockoptInt(b.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return fmt.Errorf("set IPV6_V6ONLY: %w", err)
		}
	}
	return b.bindTo(address)
}

func (b *batch) bindTo(address netip.AddrPort) error {
	index, err := zoneIndex(address.Addr().Zone())
	if err != nil {
		return err
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(address.Port()), Addr: address.Addr().As16(), ZoneId: index}
	if !b.ipv6 {
		to = &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	}
	if err := unix.Bind(b.fd, to); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	bound, err := unix.Getsockname(b.fd)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	b.address = address
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		b.address = netip.AddrPortFrom(address.Addr(), uint16(a.Port))
	case *unix.SockaddrInet6:
		b.address = netip.AddrPortFrom(address.Addr(), uint16(a.Port))
	}
	return nil
}

// configure sets the options, and finds out which offloads there are.
func (b *batch) configure(cfg Config) error {
	if err := setOptions(b.fd, b.ipv6); err != nil {
		return err
	}
	if cfg.WithoutSegmentation {
		b.stopSegmentation(reasonOff)
	} else if _, err := unix.GetsockoptInt(b.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil {
		b.stopSegmentation("not available from this kernel: UDP_SEGMENT: " + err.Error())
	} else {
		b.segmentation.Store(true)
	}
	if cfg.WithoutCoalescing {
		b.coalescing.Reason = reasonOff
	} else if err := unix.SetsockoptInt(b.fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
		b.coalescing.Reason = "not available from this kernel: UDP_GRO: " + err.Error()
	} else {
		b.coalescing.On = true
	}
	return nil
}

// isIPv6 reports whether a socket is of AF_INET6.
func isIPv6(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_INET6
}

func (b *batch) stopSegmentation(reason string) {
	b.segmentationOff.Store(&reason)
	b.segmentation.Store(false)
}

func (b *batch) offloads() Offloads {
	o := Offloads{Segmentation: Offload{On: b.segmentation.Load()}, Coalescing: b.coalescing, Batch: Offload{On: true}}
	if reason := b.segmentationOff.Load(); reason != nil && !o.Segmentation.On {
		o.Segmentation.Reason = *reason
	}
	if b.gate.enter() {
		defer b.gate.leave()
		o.ReceiveBufferBytes, o.SendBufferBytes = bufferFD(b.fd, receiveBuffer), bufferFD(b.fd, sendBuffer)
	}
	return o
}

func (b *batch) local() netip.AddrPort       { return b.address }
func (b *batch) families() (ipv4, ipv6 bool) { return b.ipv4, b.ipv6 }

func (b *batch) descriptor(f func(fd uintptr)) error {
	if !b.gate.enter() {
		return ErrClosed
	}
	defer b.gate.leave()
	f(uintptr(b.fd))
	return nil
}

func (b *batch) setBuffer(which buffer, bytes int) error {
	if !b.gate.enter() {
		return ErrClosed
	}
	defer b.gate.leave()
	return setBufferFD(b.fd, which, bytes)
}

// waitForRoom waits until the socket's send buffer has room, or the socket closes.
func (b *batch) waitForRoom(fds *[1]unix.PollFd) error {
	b.stats.waitsForRoom.Add(1)
	fds[0] = unix.PollFd{Fd: int32(b.fd), Events: unix.POLLOUT}
	for {
		errno := b.kernel.poll(fds[:])
		switch {
		case b.gate.isClosed():
			return ErrClosed
		case errno == 0:
			return nil
		case errno != unix.EINTR:
			return fmt.Errorf("poll UDP socket: %w", errno)
		}
	}
}

func (b *batch) close() error {
	b.gate.shut()
	// The kernel says that a socket without a peer is not connected, but wakes up those who receive or poll all the
	// same, and keeps others from going to sleep.
	err := unix.Shutdown(b.fd, unix.SHUT_RDWR)
	if errors.Is(err, unix.ENOTCONN) {
		err = nil
	}
	b.gate.wait()
	return errors.Join(err, b.closeDescriptor())
}

func (b *batch) closeDescriptor() error {
	if err := unix.Close(b.fd); err != nil {
		return fmt.Errorf("close UDP socket: %w", err)
	}
	return nil
}

// opError is an error as package net has it, which quic-go and others look into.
func (b *batch) opError(call string, errno syscall.Errno, to netip.AddrPort) error {
	return &net.OpError{
		Op: "write", Net: "udp", Source: net.UDPAddrFromAddrPort(b.address), Addr: net.UDPAddrFromAddrPort(to),
		Err: os.NewSyscallError(call, errno),
	}
}
