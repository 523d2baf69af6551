package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestCreateNames(t *testing.T) {
	for asked, want := range map[string]string{
		"": "tun0", "at%d": "at0", "a%dz": "a0z", "aether-x.1_y": "aether-x.1_y", "abcdefghijklmno": "abcdefghijklmno",
	} {
		inNetwork(t, func() error {
			d, err := Config{Name: asked, MTU: 1380}.Create()
			if err != nil {
				return err
			}
			link, err := netlink.LinkByName(d.Name())
			if err != nil {
				return errors.Join(err, d.Close())
			}
			if d.Name() != want || link.Type() != "tuntap" || link.Attrs().MTU != 1380 {
				t.Errorf("%q: name %q, %s of MTU %d", asked, d.Name(), link.Type(), link.Attrs().MTU)
			}
			if err := d.Close(); err != nil {
				return err
			}
			if _, err := netlink.LinkByName(want); err == nil {
				t.Errorf("%s is still there after Close", want)
			}
			return d.Close() // again
		})
	}
}

// TestTwoOfOneTemplate: two daemons on one machine.
func TestTwoOfOneTemplate(t *testing.T) {
	inNetwork(t, func() error {
		a, err := Config{Name: "at%d", MTU: 1380}.Create()
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := Config{Name: "at%d", MTU: 1380}.Create()
		if err != nil {
			return err
		}
		defer b.Close()
		if a.Name() != "at0" || b.Name() != "at1" {
			t.Errorf("got %s and %s", a.Name(), b.Name())
		}
		return nil
	})
}

// expect checks that a device is refused, for this reason, without leaving a descriptor open.
func expect(t *testing.T, name string, mtu int, reason error, text string) error {
	t.Helper()
	before, err := descriptors()
	if err != nil {
		return err
	}
	d, err := Config{Name: name, MTU: mtu}.Create()
	if err == nil {
		t.Errorf("%q, MTU %d: made", name, mtu)
		return d.Close()
	}
	refusal, ok := errors.AsType[*Error](err)
	if !ok || refusal.Name != name || refusal.Remedy == "" || reason != nil && !errors.Is(err, reason) ||
		!strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q, MTU %d: got %v; want %v, %q, with a remedy, in one line", name, mtu, err, reason, text)
	}
	after, err := descriptors()
	if after != before {
		t.Errorf("%q, MTU %d: %d descriptors before, %d after", name, mtu, before, after)
	}
	return err
}

// descriptors counts the open TUN queues of this process.
func descriptors() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && target == cloneDevice {
			n++
		}
	}
	return n, nil
}

func TestCreateRefusesNames(t *testing.T) {
	inNetwork(t, func() error {
		for name, text := range map[string]string{
			"abcdefghijklmnop": "too long: use at most 15",
			"a/b":              "not an interface name", "a b": "not an interface name",
			"a:b": "not an interface name", ".": "not an interface name", "..": "not an interface name",
			"a%s": "%d", "a%d%d": "only once", "%": "%d", "a\nb": "not an interface name",
		} {
			if err := expect(t, name, 1380, nil, text); err != nil {
				return err
			}
		}
		for _, mtu := range []int{-1, 0, 67, 65536} {
			if err := expect(t, "at0", mtu, nil, fmt.Sprintf("MTU of %d bytes: use 68 to 65535", mtu)); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestCheckNameAgreesWithTheKernel: what passes the check the kernel takes, and what does not it would refuse.
func TestCheckNameAgreesWithTheKernel(t *testing.T) {
	inNetwork(t, func() error {
		for _, name := range []string{
			"a", "a.b", "a-b", "a_b", "a@b", "a+b", "ä", "a%d", "a%", "a%s", "%d%d", "a b", "a/b", "a:b", "..",
		} {
			dev, err := open(name, 1380)
			if err == nil {
				err = dev.Close()
				if err != nil {
					return err
				}
			}
			if checked := checkName(name); (checked == nil) != (err == nil) {
				t.Errorf("%q: the check says %v, the kernel %v", name, checked, err)
			}
		}
		return nil
	})
}

func TestCreateRefusesNamesInUse(t *testing.T) {
	inNetwork(t, func() error {
		if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy7"}}); err != nil {
			t.Logf("no dummy interfaces here, so only lo and TUN are tried: %v", err)
		} else if err := expect(t, "dummy7", 1380, ErrNameInUse, "--tun NAME"); err != nil {
			return err
		}
		// A persistent device that nobody holds: the kernel would hand it out, though somebody configured it.
		if err := persistent("kept0"); err != nil {
			return err
		}
		ours, err := Config{Name: "ours0", MTU: 1380}.Create()
		if err != nil {
			return err
		}
		defer ours.Close()
		for _, name := range []string{"lo", "kept0", "ours0"} {
			if err := expect(t, name, 1380, ErrNameInUse, "--tun NAME"); err != nil {
				return err
			}
		}
		if _, err := netlink.LinkByName("kept0"); err != nil {
			t.Errorf("somebody else's device is gone: %v", err)
		}
		return nil
	})
}

// persistent makes a device that outlives its descriptor.
func persistent(name string) error {
	fd, err := unix.Open(cloneDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	// The same flags as ours, so that only asking for a new one tells them apart.
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return errors.Join(
		unix.IoctlIfreq(fd, unix.TUNSETIFF, request), unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1), unix.Close(fd),
	)
}

func TestCreateWithoutPermission(t *testing.T) {
	inNetwork(t, func() error {
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			if os.Geteuid() != 0 || errno == unix.EINVAL { // a user namespace that knows no other user
				return fmt.Errorf("%w: setresuid: %w", errRights, errno)
			}
			return errno
		}
		return expect(t, "at0", 1380, ErrPermission, "sudo")
	})
}

func TestCreateWithoutDriver(t *testing.T) {
	hidden := t.TempDir()
	onThread(t, func() error {
		if err := unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.Mount(hidden, "/dev/net", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide /dev/net: %w", err)
		}
		return expect(t, "at0", 1380, ErrNoDriver, "modprobe tun")
	})
}
