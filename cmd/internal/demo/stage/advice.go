package stage

import "fmt"

// Facts are what decides whether a corner of one's own can be made on a Linux machine.
type Facts struct {
	Privileged bool // the process has CAP_SYS_ADMIN, as root has
	// Tun says what opening /dev/net/tun gave.
	Tun TunState
	// MaxUserNamespaces is /proc/sys/user/max_user_namespaces; negative where there is no such file, which is a
	// kernel without user namespaces.
	MaxUserNamespaces int
	// UnprivilegedClone is false where Debian's kernel.unprivileged_userns_clone is 0.
	UnprivilegedClone bool
	// AppArmorRestricts is true where Ubuntu's kernel.apparmor_restrict_unprivileged_userns is 1.
	AppArmorRestricts bool
}

// TunState is whether TUN devices can be made.
type TunState string

// The states of /dev/net/tun.
const (
	TunUsable    TunState = "usable"
	TunMissing   TunState = "missing"   // no such file
	TunNoDriver  TunState = "no driver" // the file is there, the kernel module is not
	TunForbidden TunState = "forbidden" // this user may not open it
)

// userNamespaces is a number of user namespaces that is enough for everything and the usual default.
const userNamespaces = 15000

// Advice says what stands in the way of `aetherd VERB` and what to type about it, or "" when nothing that can be seen
// beforehand does.
func (f Facts) Advice(verb string) string {
	switch f.Tun {
	case TunMissing, TunNoDriver:
		return "there is no TUN device on this machine: type `sudo modprobe tun` and try again " +
			"(in a container, start it with --device /dev/net/tun --cap-add NET_ADMIN --cap-add SYS_ADMIN)"
	case TunForbidden:
		return "only root may open /dev/net/tun here: " + asRoot(verb)
	case TunUsable:
	}
	switch {
	case f.Privileged:
		return ""
	case f.MaxUserNamespaces < 0:
		return "this kernel has no user namespaces, so it takes root: " + asRoot(verb)
	case f.MaxUserNamespaces == 0:
		return allow("user.max_user_namespaces", userNamespaces, verb)
	case !f.UnprivilegedClone:
		return allow("kernel.unprivileged_userns_clone", 1, verb)
	case f.AppArmorRestricts:
		return allow("kernel.apparmor_restrict_unprivileged_userns", 0, verb)
	}
	return ""
}

// Blame turns a failure to make the corner into one line. The facts explain it if they can.
func (f Facts) Blame(verb string, err error) error {
	if advice := f.Advice(verb); advice != "" {
		return fmt.Errorf("%s (%w)", advice, err)
	}
	if f.Privileged {
		return fmt.Errorf("no namespaces can be made here: %w; "+
			"in a container, start it with --cap-add SYS_ADMIN --cap-add NET_ADMIN or --privileged", err)
	}
	return fmt.Errorf("no user namespace can be made here: %w; %s", err, asRoot(verb))
}

func asRoot(verb string) string {
	return fmt.Sprintf("type `sudo aetherd %s` (in the source tree: `sudo make %s`)", verb, verb)
}

func allow(key string, value int, verb string) string {
	return fmt.Sprintf("user namespaces are switched off for users: type `sudo sysctl %s=%d` and try again, or %s",
		key, value, asRoot(verb))
}
