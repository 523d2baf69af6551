package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/tun"
)

// router is a network namespace that forwards from a TUN with a virtio header to one without, for which the
// kernel has to cut super-packets and to complete checksums.
type router struct{ in, out int }

var errRights = errors.New("not permitted to make a namespace")

// inRouter runs f on a thread whose network is a router of its own, and ends with it.
func inRouter(t *testing.T, f func(router) error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
			err = errRights
		}
		var r router
		if err == nil {
			r, err = makeRouter()
		}
		if err == nil {
			err = f(r)
			err = errors.Join(err, unix.Close(r.in), unix.Close(r.out))
		}
		done <- err
	}()
	switch err := <-done; {
	case errors.Is(err, errRights):
		t.Skipf("%v: run as root", err)
	case err != nil:
		t.Fatal(err)
	}
}

func makeRouter() (r router, err error) {
	for path, value := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"} {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644); err != nil {
			return r, err
		}
	}
	if r.in, err = openTUN("in0", unix.IFF_VNET_HDR, "10.0.0.0/24", "fd00::/64"); err != nil {
		return r, err
	}
	r.out, err = openTUN("out0", 0, "10.0.0.2/32", "fd00::2/128")
	return r, err
}

// openTUN makes a TUN and sends networks to it.
func openTUN(name string, flags uint16, networks ...string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return 0, fmt.Errorf("TUNSETIFF: %w", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(netlink.LinkSetMTU(link, 9000), netlink.LinkSetUp(link)); err != nil {
		return 0, err
	}
	for _, n := range networks {
		_, network, err := net.ParseCIDR(n)
		if err != nil {
			return 0, err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: network}); err != nil {
			return 0, fmt.Errorf("route to %s: %w", n, err)
		}
	}
	return fd, nil
}

// forward writes a packet as a device would and returns the n packets for the same destination that come out.
func (r router) forward(p []byte, o tun.Offload, n int) ([][]byte, error) {
	const virtioBytes = 10
	b := make([]byte, virtioBytes, virtioBytes+len(p))
	if o.PartialChecksum {
		b[0] = 1
		binary.NativeEndian.PutUint16(b[6:], o.ChecksumStart)
		binary.NativeEndian.PutUint16(b[8:], o.ChecksumOffset)
	}
	if o.Segmentation != tun.SegmentNone {
		b[1] = map[tun.Segmentation]byte{tun.SegmentTCP4: 1, tun.SegmentTCP6: 4, tun.SegmentUDP: 5}[o.Segmentation]
		if o.CWR {
			b[1] |= 0x80
		}
		_, headers := slowPlaces(p)
		binary.NativeEndian.PutUint16(b[2:], uint16(headers))
		binary.NativeEndian.PutUint16(b[4:], o.SegmentBytes)
	}
	if _, err := unix.Write(r.in, append(b, p...)); err != nil {
		return nil, fmt.Errorf("write %+v: %w", o, err)
	}
	var out [][]byte
	buf := make([]byte, 65536)
	for len(out) < n {
		poll := []unix.PollFd{{Fd: int32(r.out), Events: unix.POLLIN}}
		if k, err := unix.Poll(poll, 10_000); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		} else if k == 0 {
			return out, fmt.Errorf("%d packets came out, want %d", len(out), n)
		}
		size, err := unix.Read(r.out, buf)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		// The kernel sends router solicitations and the like too.
		if v := look(buf[:max(size, 0)]); v.kind == kindWhole {
			out = append(out, bytes.Clone(buf[:size]))
		}
	}
	return out, nil
}

// kernelBuilder is a packet that a router forwards.
func kernelBuilder(rng *rand.Rand, maxPayload int) builder {
	d := randomBuilder(rng, maxPayload)
	d.flow = 3 + byte(rng.IntN(200))
	d.ttl = max(d.ttl, 2)
	return d
}

func compareWithKernel(got, want [][]byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("the kernel made %d packets of it, want %d", len(got), len(want))
	}
	for i := range got {
		DecrementHopLimit(want[i])
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("packet %d of %d\nkernel %x\n  want %x", i, len(got), got[i], want[i])
		}
	}
	return nil
}

// TestCutEqualsKernel lets the kernel cut the same super-packets: byte for byte the same segments.
func TestCutEqualsKernel(t *testing.T) {
	inRouter(t, func(r router) error {
		rng := rand.New(rand.NewPCG(21, 22))
		for range 400 {
			p := kernelBuilder(rng, 60_000).build(true)
			_, headers := slowPlaces(p)
			payload := len(p) - headers
			// As many segments as the kernel lets a super-packet have for UDP (UDP_MAX_SEGMENTS).
			o := offloadOf(p, max(payload/100, 1+rng.IntN(1400)))
			want := cutInPlace(t, p, o, false)
			sent := o
			if len(want) == 1 { // the kernel takes no super-packet of one segment for UDP
				sent.Segmentation = tun.SegmentNone
			}
			got, err := r.forward(p, sent, len(want))
			if err != nil {
				return err
			}
			if err := compareWithKernel(got, want); err != nil {
				return fmt.Errorf("%+v: %w", o, err)
			}
		}
		return nil
	})
}

// TestKernelTakesJoined gives what a Joiner made to the kernel, which cuts it again to what was received.
func TestKernelTakesJoined(t *testing.T) {
	inRouter(t, func(r router) error {
		rng := rand.New(rand.NewPCG(23, 24))
		supers := 0
		for range 300 {
			p := kernelBuilder(rng, 30_000).build(true)
			_, headers := slowPlaces(p)
			segment := max((len(p)-headers)/100, 1+rng.IntN(1400))
			partial := rng.IntN(2) == 0
			j := NewJoiner(JoinConfig{TCP: true, UDP: true, VerifyFull: true})
			for _, s := range slowCut(p, segment, partial) {
				if j.Add(s, partial, 0) != JoinTaken {
					return errors.New("not taken")
				}
			}
			want := slowCut(p, segment, false)
			for {
				m, ok := j.Next()
				if !ok {
					break
				}
				if len(m.Pieces) > 1 {
					supers++
				}
				got, err := r.forward(bytes.Join(m.Pieces, nil), m.Offload, len(m.Pieces))
				if err != nil {
					return err
				}
				if err := compareWithKernel(got, want[:len(m.Pieces)]); err != nil {
					return err
				}
				want = want[len(m.Pieces):]
			}
			if len(want) != 0 {
				return fmt.Errorf("%d segments were lost", len(want))
			}
		}
		if supers < 100 {
			return fmt.Errorf("only %d super-packets", supers)
		}
		return nil
	})
}
