package tun

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrNoDriver means that the operating system has no TUN driver (on Linux: no /dev/net/tun).
	ErrNoDriver = errors.New("no TUN driver")
	// ErrPermission means that the process may not create network interfaces.
	ErrPermission = errors.New("not permitted to create a network interface")
	// ErrNameInUse means that an interface of that name exists already.
	ErrNameInUse = errors.New("interface name in use")
	// ErrClosed is what reading and writing return after Close, or after the device was deleted by someone else.
	ErrClosed = errors.New("TUN device closed")
	// ErrUnreadable is what reading returns when the host handed over a packet that is not among those returned: with
	// an unknown kind of offload, or one that contradicts the packet. It is lost; the device is still good.
	ErrUnreadable = errors.New("packet from the host cannot be read")
	// ErrUnwritable is what WritePacket returns for what this device cannot write: too many pieces or bytes, an Offload
	// that contradicts the packet or that Offloads does not name. The packet is lost; the device is still good.
	ErrUnwritable = errors.New("packet cannot be written")
)

// Ready-made, since a packet may be the fault of a stranger, and of those there can be many.
var (
	errPieces  = fmt.Errorf("%w: not 1 to %d pieces", ErrUnwritable, MaxPieces)
	errLength  = fmt.Errorf("%w: not 1 to %d bytes", ErrUnwritable, MaxPacketBytes)
	errOffload = fmt.Errorf("%w: offload that the device does not do", ErrUnwritable)
	errHeaders = fmt.Errorf("%w: headers not whole in the first piece, or not what the offload says", ErrUnwritable)
)

// Error says which device could not be made and what the user can do about it.
type Error struct {
	Name   string // interface name asked for
	Remedy string // what to do, a clause without a full stop
	Err    error  // one of the sentinels above, or the system's error
}

// Error gives the one line for the user: the thing, the reason, the remedy.
func (e *Error) Error() string {
	what := "create TUN device"
	if e.Name != "" && !strings.Contains(e.Name, "%") { // a template is no name that the user has chosen
		what += " " + strings.Trim(strconv.Quote(e.Name), `"`) // in one line, whatever was typed
	}
	if e.Remedy == "" {
		return fmt.Sprintf("%s: %v", what, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", what, e.Err, e.Remedy)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RefusedError says that the host's network stack did not take what was written: the interface is down, there is no
// memory. The device is still good.
type RefusedError struct {
	Err error // the system's
}

// Error says why.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("write refused by the host: %v", e.Err)
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }
