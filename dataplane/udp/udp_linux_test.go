package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// markOf asks the kernel.
func markOf(conn *net.UDPConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var mark int
	var optErr error
	err = raw.Control(func(fd uintptr) { mark, optErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) })
	return mark, errors.Join(err, optErr)
}

func TestMarkIsSet(t *testing.T) {
	inNetwork(t, func(ctx context.Context) error {
		addresses := []netip.AddrPort{{}, netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")}
		for _, mark := range []uint32{0, 1, 0xae7e0001} {
			for _, address := range addresses {
				conn, err := Listen(ctx, Config{Address: address, Mark: mark})
				if err != nil {
					return err
				}
				got, err := markOf(conn)
				if err != nil || uint32(got) != mark {
					t.Errorf("%v: mark %#x, %v; want %#x", address, uint32(got), err, mark)
				}
				if err := conn.Close(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// TestWithoutRights: the same port is fine without a mark, and the error does not blame the port.
func TestWithoutRights(t *testing.T) {
	inNetwork(t, func(ctx context.Context) error {
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			if os.Geteuid() != 0 || errno == unix.EINVAL { // a user namespace that knows no other user
				return fmt.Errorf("%w: setresuid: %w", errRights, errno)
			}
			return errno
		}
		for _, c := range []struct {
			name string
			cfg  Config
			want error
		}{
			{"mark", Config{Mark: 1}, ErrMark},
			{"low port", Config{Address: netip.MustParseAddrPort("127.0.0.1:443")}, ErrPermission},
			{"mark and low port", Config{Address: netip.MustParseAddrPort("127.0.0.1:443"), Mark: 1}, ErrMark},
			{"neither", Config{}, nil},
		} {
			conn, err := Listen(ctx, c.cfg)
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%s: got %v, want %v", c.name, err, c.want)
			}
			if err != nil && strings.Count(err.Error(), "listen") != 1 { // wrapped once, in our words
				t.Errorf("%s: %v", c.name, err)
			}
			if err == nil {
				if err := conn.Close(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// TestHostWithoutIPv6: the wildcard still works over IPv4 where IPv6 is disabled.
func TestHostWithoutIPv6(t *testing.T) {
	inNetwork(t, func(ctx context.Context) error {
		for _, which := range []string{"all", "default", "lo"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0); err != nil {
				return err
			}
		}
		conn, err := Listen(ctx, Config{})
		if err != nil {
			return err
		}
		defer conn.Close()
		to := net.UDPAddrFromAddrPort(port(conn, "127.0.0.1"))
		c, err := net.DialUDP("udp4", nil, to)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		if _, from, err := conn.ReadFromUDPAddrPort(make([]byte, 10)); err != nil || !from.Addr().Unmap().Is4() {
			t.Errorf("from %v, %v", from, err)
		}
		if _, err := Listen(ctx, Config{Address: netip.MustParseAddrPort("[::1]:0")}); !errors.Is(err, ErrAddress) {
			t.Errorf("an IPv6 address: got %v", err)
		}
		return nil
	})
}

// TestMarkOfAClosedSocket: the error is not taken for one of rights.
func TestMarkOfAClosedSocket(t *testing.T) {
	conn := listen(t, "127.0.0.1:0")
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := SetMark(raw, 1); err == nil || errors.Is(err, ErrMark) {
		t.Errorf("got %v", err)
	}
	if err := SetMark(raw, 0); err != nil {
		t.Errorf("no mark: %v", err)
	}
}

// errRights says that the process may not do what the test needs, which only root may everywhere.
var errRights = errors.New("not permitted")

// inNetwork runs f on a thread with a network of its own, of loopback alone, which ends with it.
func inNetwork(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	ctx, done := t.Context(), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
				return fmt.Errorf("%w: unshare", errRights)
			} else if err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return err
			}
			return f(ctx)
		}()
	}()
	switch err := <-done; {
	case errors.Is(err, errRights):
		t.Skipf("%v: run as root", err)
	case err != nil:
		t.Fatal(err)
	}
}
