package masque

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// socketsInNamespace returns two loopback sockets in a new network namespace whose
// loopback has the given MTU. The namespace lives as long as its sockets.
func socketsInNamespace(t *testing.T, mtu uint32) (a, b *net.UDPConn) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		result <- func() (err error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("new network namespace: %w", err)
			}
			if err := loopbackUp(mtu); err != nil {
				return err
			}
			loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
			if a, err = net.ListenUDP("udp4", loopback); err != nil {
				return err
			}
			b, err = net.ListenUDP("udp4", loopback)
			return err
		}()
	}()
	err := <-result
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	if errors.Is(err, unix.EPERM) && unix.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// loopbackUp sets the MTU of the loopback of this thread's namespace and starts it.
func loopbackUp(mtu uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("ifreq: %w", err)
	}
	lo.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, lo); err != nil {
		return fmt.Errorf("set mtu: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// What the package comment says about an interface that is too small: a dial with an
// explicit size fails at once with EMSGSIZE, and the fallback connects.
func TestOwnLinkTooSmall(t *testing.T) {
	serverTLS, clientTLS := testTLS(t, RequireHybrid)
	client, server := socketsInNamespace(t, 1280)
	sizes := NewInitialSizes()
	listening := &quic.Transport{Conn: NewObservedConn(server, sizes), ConnectionIDLength: 8}
	listener, err := listening.Listen(serverTLS, sizes.QUICConfig())
	if err != nil {
		t.Fatal(err)
	}
	dialing := &quic.Transport{Conn: client, ConnectionIDLength: 8}
	t.Cleanup(func() { _, _, _ = dialing.Close(), listener.Close(), listening.Close() })
	dial := func(ctx context.Context, size uint16) (*quic.Conn, error) {
		return dialing.Dial(ctx, server.LocalAddr(), clientTLS, QUICConfig(size))
	}
	_, err = dial(t.Context(), PreferredPacketSize)
	var local *quic.TransportError
	if !errors.As(err, &local) || local.Remote || local.ErrorCode != quic.InternalError ||
		!strings.Contains(err.Error(), syscall.EMSGSIZE.Error()) {
		t.Errorf("dial with %d: %v", PreferredPacketSize, err)
	}
	conn, size, err := DialPacketSizes(t.Context(), dial)
	if err != nil || size != SmallestPacketSize {
		t.Fatalf("fallback: %d, %v", size, err)
	}
	_ = conn.CloseWithError(0, "")
}
