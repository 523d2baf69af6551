//go:build !linux

package daemon

// checkPrivilege leaves it to the driver to refuse: other systems have no capability to ask for.
func checkPrivilege() error { return nil }
