package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// anyPacket is one that the host takes.
func anyPacket() [][]byte {
	return [][]byte{udpPacket(netip.AddrPortFrom(peer4, 1), netip.AddrPortFrom(host4, 1), []byte("x"))}
}

// TestReadPacketsStops: at the budget, at the end of the slice, when there is nothing left.
func TestReadPacketsStops(t *testing.T) {
	withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
		if err := quiet(d); err != nil {
			return err
		}
		s, err := udpSocket(peer4, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		for range 9 {
			if _, err := unix.Write(s, make([]byte, 72)); err != nil { // 100 with the headers
				return err
			}
		}
		for _, c := range []struct {
			name                string
			read                func([]Packet, int) (int, error)
			slots, budget, want int
		}{
			{"no slot", d.ReadPackets, 0, 0, 0},
			{"slots", d.ReadPackets, 2, 0, 2},
			{"budget used up", d.ReadPackets, 8, 200, 2},
			{"budget overdrawn", d.TryReadPackets, 8, 101, 2},
			{"a small budget", d.ReadPackets, 8, 1, 1},
			{"empty", d.ReadPackets, 8, 0, 2},
			{"still empty", d.TryReadPackets, 8, 0, 0},
		} {
			if n, err := c.read(slots(c.slots), c.budget); n != c.want || err != nil {
				t.Errorf("%s: %d, %v; want %d", c.name, n, err, c.want)
			}
		}
		return nil
	})
}

// quiet stops what the host sends of its own accord (MLD, router solicitations), for tests that count packets.
func quiet(d Device) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/at0/disable_ipv6", []byte("1"), 0o644)
	return errors.Join(err, drain(d))
}

// drain takes what is there.
func drain(d Device) error {
	for {
		if n, err := d.TryReadPackets(slots(8), 0); n == 0 || err != nil {
			return err
		}
	}
}

// TestPacketsWhileDown: EIO on every write until the interface is up again; reading is not disturbed.
func TestPacketsWhileDown(t *testing.T) {
	withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
		link, err := netlink.LinkByName("at0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(link); err != nil {
			return err
		}
		packet := anyPacket()
		for range 2 {
			refused, ok := errors.AsType[*RefusedError](d.WritePacket(packet, Offload{}))
			if !ok || !errors.Is(refused, unix.EIO) {
				t.Errorf("got %+v", refused)
			}
		}
		if !raceEnabled {
			if n := testing.AllocsPerRun(100, func() { d.WritePacket(packet, Offload{}) }); n != 0 {
				t.Errorf("%v allocations for a packet refused", n)
			}
		}
		if err := drain(d); err != nil {
			t.Errorf("read while down: %v", err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if err := d.WritePacket(packet, Offload{}); err != nil {
			t.Errorf("up again: %v", err)
		}
		err = d.WritePacket([][]byte{{0x50, 0, 0, 0}}, Offload{})
		if refused, ok := errors.AsType[*RefusedError](err); !ok || !errors.Is(refused, unix.EINVAL) {
			t.Errorf("IP version 5: %v", err)
		}
		return nil
	})
}

// TestEndOfReadPackets: closed by us, deleted by others, while one waits.
func TestEndOfReadPackets(t *testing.T) {
	for name, end := range map[string]func(Device) error{
		"closed": Device.Close,
		"deleted": func(Device) error {
			link, err := netlink.LinkByName("at0")
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		},
	} {
		for range 10 {
			withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
				done, reading := make(chan error, 1), make(chan struct{})
				go func() {
					close(reading)
					for {
						if _, err := d.ReadPackets(slots(2), 0); err != nil {
							done <- err
							return
						}
					}
				}()
				<-reading
				if err := end(d); err != nil {
					return err
				}
				if err := <-done; !errors.Is(err, ErrClosed) {
					t.Errorf("%s: the waiting ReadPackets: %v", name, err)
				}
				for call, err := range packetCalls(d) {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("%s: %s: %v", name, call, err)
					}
				}
				return nil
			})
		}
	}
}

func packetCalls(d Device) map[string]error {
	_, readErr := d.ReadPackets(slots(1), 0)
	_, tryErr := d.TryReadPackets(slots(1), 0)
	return map[string]error{
		"ReadPackets": readErr, "TryReadPackets": tryErr, "WritePacket": d.WritePacket(anyPacket(), Offload{}),
	}
}

// TestKernelErrors: an answer to each, those too that no kernel could be brought to give here.
func TestKernelErrors(t *testing.T) {
	withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
		q := d.(*native).queue
		for _, c := range []struct {
			errno unix.Errno
			want  error // nil: the end, with the error in it
		}{
			{unix.EBADFD, ErrClosed},
			{unix.ENODEV, ErrClosed},
			{unix.EINVAL, ErrUnreadable},
			{unix.ENOMEM, ErrUnreadable},
			{unix.ENOBUFS, ErrUnreadable},
			{unix.EIO, nil},
			{unix.EFAULT, nil},
		} {
			err := q.readError(c.errno)
			if c.want == nil && (errors.Is(err, ErrClosed) || errors.Is(err, ErrUnreadable) || !errors.Is(err, c.errno)) ||
				c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("read: %v: %v", c.errno, err)
			}
		}
		for _, errno := range []unix.Errno{
			unix.EIO, unix.EINVAL, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN, unix.EFAULT, unix.EMSGSIZE, unix.EIO,
		} {
			refused, ok := errors.AsType[*RefusedError](q.writeError(errno))
			if !ok || !errors.Is(refused, errno) {
				t.Errorf("write: %v: %+v", errno, refused)
			}
		}
		for _, errno := range []unix.Errno{unix.EBADFD, unix.ENODEV} {
			if err := q.writeError(errno); !errors.Is(err, ErrClosed) {
				t.Errorf("write: %v: %v", errno, err)
			}
		}
		link, err := netlink.LinkByName("at0")
		if err != nil {
			return err
		}
		if err := netlink.LinkDel(link); err != nil {
			return err
		}
		if err := q.readError(unix.EFAULT); !errors.Is(err, ErrClosed) { // as a read that waits gets it
			t.Errorf("read: deleted: %v", err)
		}
		return nil
	})
}

// TestChecksumThatIsNotTheTransports: another program sends with an offload that we do not pass on, so the device does
// what is left to do.
func TestChecksumThatIsNotTheTransports(t *testing.T) {
	withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
		if err := quiet(d); err != nil {
			return err
		}
		link, err := netlink.LinkByName("at0")
		if err != nil {
			return err
		}
		protocol := uint16(unix.ETH_P_IP<<8&0xff00 | unix.ETH_P_IP>>8)
		s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol))
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
		echo := []byte{8, 0, 0, 0, 0, 5, 0, 6, 'h', 'e', 'l', 'l', 'o'}
		ip := append(ipHeader(host4, peer4, unix.IPPROTO_ICMP, len(echo)), echo...)
		header := virtio(unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_NONE, 0, 20, 2)
		to := &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Protocol: protocol}
		if err := unix.Sendto(s, append(header[:], ip...), 0, to); err != nil {
			return err
		}
		got := slots(1)
		if n, err := d.ReadPackets(got, 0); n != 1 || err != nil {
			return fmt.Errorf("%d, %w", n, err)
		}
		p := got[0]
		if p.Offload != (Offload{}) || len(p.Data) != len(ip) || onesSum(p.Data[20:]) != 0xffff {
			t.Errorf("got %+v, %x", p.Offload, p.Data)
		}
		return nil
	})
}

// TestWithoutVirtioHeader: a queue without offloads gives whole packets and takes nothing else.
func TestWithoutVirtioHeader(t *testing.T) {
	withDriver(t, 0, func(d *native) error {
		if o := d.Offloads(); o != (Offloads{}) {
			t.Errorf("offloads %+v", o)
		}
		s, err := udpSocket(peer4, 500)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := quiet(d); err != nil {
			return err
		}
		if _, err := unix.Write(s, bytes.Repeat([]byte{7}, 1500)); err != nil {
			return err
		}
		got := slots(8)
		n, err := d.ReadPackets(got, 0)
		if n != 3 || err != nil {
			t.Errorf("%d packets, %v", n, err)
		}
		for _, p := range got[:n] {
			u := p.Data[20:]
			sum := onesSum(p.Data[12:20], []byte{0, unix.IPPROTO_UDP, 508 >> 8, 508 & 0xff}, u)
			if p.Offload != (Offload{}) || len(u) != 508 || sum != 0xffff {
				t.Errorf("%+v, %d bytes, sum %x", p.Offload, len(u), sum)
			}
		}
		o := Offload{PartialChecksum: true, ChecksumStart: 20, ChecksumOffset: 6}
		if err := d.WritePacket(anyPacket(), o); !errors.Is(err, ErrUnwritable) {
			t.Errorf("a partial checksum: %v", err)
		}
		return errors.Join(transferOne(d), d.Close())
	})
}

// transferOne writes a datagram in three pieces and reads it at a socket.
func transferOne(d Device) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrInet4{Port: 7001}); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}); err != nil {
		return err
	}
	p := udpPacket(netip.AddrPortFrom(peer4, 1), netip.AddrPortFrom(host4, 7001), []byte("in pieces"))
	if err := d.WritePacket([][]byte{p[:28], p[28:30], {}, p[30:]}, Offload{}); err != nil {
		return err
	}
	b := make([]byte, 100)
	n, _, err := unix.Recvfrom(s, b, 0)
	if err != nil || string(b[:n]) != "in pieces" {
		return fmt.Errorf("got %q, %w", b[:n], err)
	}
	return nil
}

// virtio is a header as the kernel makes it.
func virtio(flags, kind byte, size, start, offset uint16) (h [virtioHeaderBytes]byte) {
	h[0], h[1] = flags, kind
	binary.NativeEndian.PutUint16(h[4:], size)
	binary.NativeEndian.PutUint16(h[6:], start)
	binary.NativeEndian.PutUint16(h[8:], offset)
	return h
}
