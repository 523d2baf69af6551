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
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// senderEnv makes BenchmarkWake be the sender: how many packets, and how far apart.
const senderEnv = "AETHERTUNNEL_WAKE_SENDER"

// BenchmarkWake is the time from a send in another process to the reader that waits for it, and the CPU time of the
// reader's process per packet: with Go's poller, as ReadPackets waits, and in poll(2) for comparison; the reader on a
// thread of its own or not.
func BenchmarkWake(b *testing.B) {
	if order := os.Getenv(senderEnv); order != "" {
		if err := send(order); err != nil {
			b.Fatal(err)
		}
		return
	}
	for _, pause := range []time.Duration{20 * time.Microsecond, time.Millisecond} {
		for _, locked := range []bool{false, true} {
			for _, waiter := range []string{"poll", "netpoller"} {
				b.Run(fmt.Sprintf("every=%v/locked=%v/%s", pause, locked, waiter), func(b *testing.B) {
					withConfig(b, Config{Name: "at0", MTU: 1380}, func(d Device) error {
						read := d.ReadPackets
						if waiter == "poll" {
							var err error
							if read, err = polling(d.(*native)); err != nil {
								return err
							}
						}
						return wake(b, d, read, locked, pause)
					})
				})
			}
		}
	}
}

// polling reads as ReadPackets does, but waits in a system call.
func polling(d *native) (func([]Packet, int) (int, error), error) {
	raw, err := d.dev.File().SyscallConn()
	if err != nil {
		return nil, err
	}
	var wait [1]unix.PollFd
	if err := raw.Control(func(fd uintptr) {
		wait[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}); err != nil {
		return nil, err
	}
	return func(packets []Packet, _ int) (int, error) {
		for {
			if n, err := d.TryReadPackets(packets, 0); n > 0 || err != nil {
				return n, err
			}
			// Close does not end it, but the last packet can be long gone then: look now and then.
			if _, err := unix.Poll(wait[:], 100); err != nil && err != unix.EINTR {
				return 0, err
			}
		}
	}, nil
}

func wake(
	b *testing.B, d Device, read func([]Packet, int) (int, error), locked bool, pause time.Duration,
) error {
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
		taken, err = takeTimes(read, taken)
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
func takeTimes(read func([]Packet, int) (int, error), taken []int64) ([]int64, error) {
	packets := make([]Packet, 1)
	buf := make([]byte, Headroom+MaxPacketBytes)
	for {
		packets[0].Data = buf
		n, err := read(packets, 0)
		now := nanos()
		switch {
		case errors.Is(err, ErrClosed), errors.Is(err, os.ErrClosed):
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
