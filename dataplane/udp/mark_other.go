//go:build !linux

package udp

import "syscall"

// SetMark does nothing: only Linux has firewall marks.
func SetMark(syscall.RawConn, uint32) error { return nil }
