//go:build !linux && !darwin

package udp

import "syscall"

// setConnOptions has nothing to ask for that parseControl could read.
func setConnOptions(syscall.RawConn) error { return nil }
