package daemon

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// A process without CAP_NET_RAW cannot ping: it must say so.
func TestEchoWithoutPermission(t *testing.T) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread that lacks the capability dies with this goroutine
		if err := dropCapability(unix.CAP_NET_RAW); err != nil {
			done <- err
			return
		}
		_, err := echo(t.Context(), netip.MustParseAddr("127.0.0.1"))
		done <- err
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("got %v", err)
	}
}

// dropCapability takes a capability from the calling thread.
func dropCapability(number int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[number/32].Effective &^= 1 << (number % 32)
	return unix.Capset(&header, &data[0])
}

// A ping that fails at once must not be repeated without a pause.
func TestFirstPacketPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		pings, told := 0, 0
		_, err := firstPacket(ctx,
			func(context.Context) (time.Duration, error) { pings++; return 0, errNoTarget },
			func() uint64 { return 0 },
			func(error) { told++ })
		if !errors.Is(err, context.DeadlineExceeded) || told != 1 {
			t.Errorf("%v, told %d times", err, told)
		}
		if want := int(time.Second / echoRetry); pings > want+1 {
			t.Errorf("%d pings in a second, want about %d", pings, want)
		}
	})
}

func TestFirstPacketThatIsNoEcho(t *testing.T) {
	_, err := firstPacket(t.Context(),
		func(context.Context) (time.Duration, error) { return 0, errNoTarget },
		func() uint64 { return 1 }, func(err error) { t.Errorf("told %v", err) })
	if !errors.Is(err, errNoEcho) {
		t.Errorf("got %v", err)
	}
}
