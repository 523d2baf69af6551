package daemon

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errPrivilege is the one line for a user who forgot sudo.
var errPrivilege = errors.New("aetherd up makes a network interface and routes, which needs the capability CAP_NET_ADMIN: " +
	"run it with sudo")

// checkPrivilege finds out whether the process may change the network before anything is made.
func checkPrivilege() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 64 capabilities in two words
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errPrivilege
	}
	return nil
}
