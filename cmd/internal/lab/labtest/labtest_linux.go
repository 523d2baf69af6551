package labtest

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// Namespace makes a network namespace that lives as long as the test. Without CAP_SYS_ADMIN the test is
// skipped.
func Namespace(t testing.TB, name string) *lab.Namespace {
	t.Helper()
	n, err := lab.NewNamespace(name)
	if errors.Is(err, os.ErrPermission) && !mayUnshare(t) {
		t.Skipf("needs CAP_SYS_ADMIN, which this process does not have: run as root or under unshare -r (%v)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// mayUnshare asks the kernel whether this process has what a network namespace needs, so that no other
// failure passes for the lack of it.
func mayUnshare(t testing.TB) bool {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatalf("read capabilities: %v", err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// Veth joins two places by a cable.
func Veth(t testing.TB, a, b lab.Interface, mtu int) {
	t.Helper()
	if err := lab.Veth(a, b, mtu); err != nil {
		t.Fatal(err)
	}
}

// Emulate joins two places by an emulated link, and logs its seed if the test fails.
func Emulate(t testing.TB, a, b lab.Interface, config lab.EmulatorConfig) *lab.Emulator {
	t.Helper()
	link, err := lab.Emulate(a, b, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("link of %v and %v: seed %d, a to b %+v, b to a %+v", a, b, config.Seed,
				link.Counters(lab.AToB), link.Counters(lab.BToA))
		}
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	return link
}

// Serve starts a traffic server that lives as long as the test.
func Serve(t testing.TB, host traffic.Host, address string) *traffic.Server {
	t.Helper()
	server, err := traffic.Serve(t.Context(), host, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}
