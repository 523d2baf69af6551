package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// senderEnv makes BenchmarkWake be the sender: how many packets, and how far apart.
const senderEnv = "AETHERTUNNEL_WAKE_SENDER"

// BenchmarkWake is the time from a send in another process to the reader that waits for it, and the CPU time of the
// reader's process per packet: with Go's poller, as ReadPackets waits, and for comparison in poll(2) on a descriptor
// that Go's poller does not know; the reader on a thread of its own or not.
func BenchmarkWake(b *testing.B) {
	if order := os.Getenv(senderEnv); order != "" {
		if err := send(order); err != nil {
			b.Fatal(err)
		}
		return
	}
	for _, pause := range []time.Duration{20 * time.Microsecond, time.Millisecond} {
		for _, locked := range []bool{false, true} {
			name := fmt.Sprintf("every=%v/locked=%v/", pause, locked)
			b.Run(name+"netpoller", func(b *testing.B) {
				withConfig(b, Config{Name: "at0", MTU: 1380}, func(d Device) error {
					return wake(b, d, locked, pause)
				})
			})
			b.Run(name+"poll", func(b *testing.B) {
				inNetwork(b, func() error {
					d, err := newPolled()
					if err != nil {
						return err
					}
					return inUse(d, func(d Device) error { return wake(b, d, locked, pause) })
				})
			})
		}
	}
}

// polled is a device whose reader waits in a system call. As a syscall.RawConn it is its own descriptor.
type polled struct {
	fd, ended int // the queue, and an eventfd that is readable from Close on
	reading   sync.Mutex
	wait      [2]unix.PollFd // guarded by reading
	queue     *queue
	closed    atomic.Bool
}

var (
	_ Device          = (*polled)(nil)
	_ syscall.RawConn = (*polled)(nil)
)

func newPolled() (*polled, error) {
	fd, err := descriptor("at0", unix.IFF_VNET_HDR)
	if err != nil {
		return nil, err
	}
	p := &polled{fd: fd}
	p.queue = queueOf(p, "at0", Offloads{VirtioHeader: true})
	if p.ended, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return p, nil
}

func (p *polled) Read(attempt func(fd uintptr) bool) error {
	p.reading.Lock()
	defer p.reading.Unlock()
	for !attempt(uintptr(p.fd)) {
		p.wait[0] = unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN}
		p.wait[1] = unix.PollFd{Fd: int32(p.ended), Events: unix.POLLIN}
		if _, err := unix.Poll(p.wait[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if p.wait[1].Revents != 0 {
			return os.ErrClosed
		}
	}
	return nil
}

func (p *polled) Control(f func(fd uintptr)) error {
	if p.closed.Load() {
		return os.ErrClosed
	}
	f(uintptr(p.fd))
	return nil
}

func (p *polled) Write(attempt func(fd uintptr) bool) error {
	attempt(uintptr(p.fd))
	return nil
}

func (p *polled) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	if _, err := unix.Write(p.ended, binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
		return err
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	return errors.Join(unix.Close(p.fd), unix.Close(p.ended))
}

func (p *polled) Name() string       { return "at0" }
func (p *polled) Offloads() Offloads { return p.queue.offloads }

func (p *polled) ReadPackets(packets []Packet, budgetBytes int) (int, error) {
	return p.queue.readPackets(packets, budgetBytes, true)
}

func (p *polled) TryReadPackets(packets []Packet, budgetBytes int) (int, error) {
	return p.queue.readPackets(packets, budgetBytes, false)
}

func (p *polled) WritePacket(pieces [][]byte, o Offload) error { return p.queue.writePacket(pieces, o) }

func wake(b *testing.B, d Device, locked bool, pause time.Duration) error {
	sender := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkWake$", "-test.benchtime=1x")
	sender.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", senderEnv, b.N, pause))
	if err := sender.Start(); err != nil { // on this thread, so in its network
		return err
	}
	taken := make([]int64, 0, b.N)
	done := make(chan error, 1)
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return err
	}
	b.ResetTimer()
	go func() {
		if locked {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		var err error
		taken, err = takeTimes(d, taken)
		done <- err
	}()
	if err := sender.Wait(); err != nil {
		return err
	}
	b.StopTimer()
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		return err
	}
	if err := errors.Join(d.Close(), <-done); err != nil {
		return err
	}
	if len(taken) == 0 {
		return errors.New("no packet arrived")
	}
	slices.Sort(taken)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(taken[len(taken)/2]), "p50-ns")
	b.ReportMetric(float64(taken[len(taken)*99/100]), "p99-ns")
	b.ReportMetric(float64(cpu)/float64(len(taken)), "cpu-ns/op")
	return nil
}

// takeTimes reads packets of the sender until the device is closed and adds how old each is.
func takeTimes(d Device, taken []int64) ([]int64, error) {
	packets := make([]Packet, 1)
	buf := make([]byte, Headroom+MaxPacketBytes)
	for {
		packets[0].Data = buf
		n, err := d.ReadPackets(packets, 0)
		now := nanos()
		switch {
		case errors.Is(err, ErrClosed):
			return taken, nil
		case err != nil:
			return taken, err
		}
		if p := packets[0].Data; n == 1 && len(p) == 36 && destination(p) == peer4 {
			taken = append(taken, now-int64(binary.NativeEndian.Uint64(p[28:])))
		}
	}
}

// send is what the other process does.
func send(order string) error {
	var packets int
	var pause int64
	if _, err := fmt.Sscan(order, &packets, &pause); err != nil {
		return err
	}
	s, err := udpSocket(peer4, 0)
	if err != nil {
		return err
	}
	var payload [8]byte
	for range packets {
		wait := unix.NsecToTimespec(pause)
		if err := unix.Nanosleep(&wait, nil); err != nil && err != unix.EINTR {
			return err
		}
		binary.NativeEndian.PutUint64(payload[:], uint64(nanos()))
		if _, err := unix.Write(s, payload[:]); err != nil {
			return err
		}
	}
	return unix.Close(s)
}

// nanos is a clock that processes share. It bypasses Go's scheduler, which would count in what is measured.
func nanos() int64 {
	var t unix.Timespec
	_, _, errno := unix.RawSyscall(
		unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&t)), 0,
	)
	if errno != 0 {
		panic(errno)
	}
	return t.Nano()
}

// udpSocket is connected to port 7001 of an address; a size of segments makes it send super-packets.
func udpSocket(to netip.Addr, segmentBytes int) (int, error) {
	family, port := unix.AF_INET, 7001
	var address unix.Sockaddr
	if to.Is4() {
		address = &unix.SockaddrInet4{Port: port, Addr: to.As4()}
	} else {
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: to.As16()}
	}
	s, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if segmentBytes != 0 {
		if err := unix.SetsockoptInt(s, unix.SOL_UDP, unix.UDP_SEGMENT, segmentBytes); err != nil {
			return -1, err
		}
	}
	return s, unix.Connect(s, address)
}

// benchSizes are UDP payloads: one small packet, and a super-packet of 47 segments.
var benchSizes = []struct {
	name                  string
	payload, segmentBytes int
}{{"64 bytes", 36, 0}, {"64 KB", 47 * 1352, 1352}}

// BenchmarkReadPackets takes packets that wait.
func BenchmarkReadPackets(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(size.name, func(b *testing.B) {
			withConfig(b, Config{Name: "at0", MTU: 1380}, func(d Device) error {
				if err := quiet(d); err != nil {
					return err
				}
				s, err := udpSocket(peer4, size.segmentBytes)
				if err != nil {
					return err
				}
				defer unix.Close(s)
				if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<26); err != nil {
					return err
				}
				const batch = 64
				payload, packets := make([]byte, size.payload), slots(batch)
				buffers := slices.Clone(packets)
				b.SetBytes(int64(28 + size.payload))
				b.ReportAllocs()
				for left := b.N; left > 0; {
					b.StopTimer()
					n := min(left, batch)
					for range n {
						if _, err := unix.Write(s, payload); err != nil {
							return err
						}
					}
					copy(packets, buffers)
					b.StartTimer()
					if got, err := d.ReadPackets(packets, 0); got != n || err != nil {
						return fmt.Errorf("%d of %d packets, %w", got, n, err)
					}
					left -= n
				}
				return nil
			})
		})
	}
}

// BenchmarkWritePacket hands the host packets in pieces that it drops when it has looked up where to.
func BenchmarkWritePacket(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(size.name, func(b *testing.B) {
			withConfig(b, Config{Name: "at0", MTU: 1380}, func(d Device) error {
				packet := udpPacket(netip.AddrPortFrom(peer4, 1), netip.AddrPortFrom(peer4, 2), make([]byte, size.payload))
				o := Offload{PartialChecksum: true, ChecksumStart: 20, ChecksumOffset: 6}
				if size.segmentBytes != 0 {
					o.Segmentation, o.SegmentBytes = SegmentUDP, uint16(size.segmentBytes)
				}
				pieces := inPieces(Packet{packet, o})
				b.SetBytes(int64(len(packet)))
				b.ReportAllocs()
				for b.Loop() {
					if err := d.WritePacket(pieces, o); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}
