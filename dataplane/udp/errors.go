package udp

import "errors"

var (
	// ErrPortInUse means that another program has the UDP port.
	ErrPortInUse = errors.New("UDP port is in use by another program")
	// ErrPermission means that the process may not bind the port.
	ErrPermission = errors.New("not permitted to bind the UDP port")
	// ErrAddress means that the host does not have the address.
	ErrAddress = errors.New("this machine does not have the address")
	// ErrMark means that the process may not give its sockets a firewall mark.
	ErrMark = errors.New("not permitted to set the firewall mark of a socket")
)
