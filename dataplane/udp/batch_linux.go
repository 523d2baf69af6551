package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// batch is a socket with recvmmsg, sendmmsg, UDP_GRO and UDP_SEGMENT. It waits with Go's poller: a goroutine that sleeps
// in recvmmsg itself wakes up with fewer calls, but each time the runtime's monitor thread wakes up too, which costs more.
type batch struct {
	*portable

	kernel kernel
	ipv6   bool // IPv4 addresses are given to the kernel as mapped ones

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

func openBatch(ctx context.Context, cfg Config, stats *counters, k kernel) (*batch, error) {
	p, err := openPortable(ctx, cfg, stats, "")
	if err != nil {
		return nil, err
	}
	b := &batch{portable: p, kernel: k, receiver: newReceiver(k)}
	b.senders.New = func() any { return newSender(k, stats) }
	if err := p.raw.Control(func(fd uintptr) { b.configure(int(fd), cfg) }); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return b, nil
}

// configure finds out which offloads there are.
func (b *batch) configure(fd int, cfg Config) {
	b.ipv6 = isIPv6(fd)
	if cfg.WithoutSegmentation {
		b.stopSegmentation(reasonOff)
	} else if _, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil {
		b.stopSegmentation("not available from this kernel: UDP_SEGMENT: " + err.Error())
	} else {
		b.segmentation.Store(true)
	}
	if cfg.WithoutCoalescing {
		b.coalescing.Reason = reasonOff
	} else if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
		b.coalescing.Reason = "not available from this kernel: UDP_GRO: " + err.Error()
	} else {
		b.coalescing.On = true
	}
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
	o := b.portable.offloads()
	o.Segmentation, o.Coalescing, o.Batch = Offload{On: b.segmentation.Load()}, b.coalescing, Offload{On: true}
	if reason := b.segmentationOff.Load(); reason != nil && !o.Segmentation.On {
		o.Segmentation.Reason = *reason
	}
	return o
}

// opError is an error as package net has it, which quic-go and others look into.
func (b *batch) opError(call string, errno syscall.Errno, to netip.AddrPort) error {
	return &net.OpError{
		Op: "write", Net: "udp", Source: net.UDPAddrFromAddrPort(b.local()), Addr: net.UDPAddrFromAddrPort(to),
		Err: os.NewSyscallError(call, errno),
	}
}
