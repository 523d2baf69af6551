package dataplane

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrUnknownPeer is returned by Attach for a peer that the current snapshot does not list, or no longer lists.
var ErrUnknownPeer = errors.New("peer is not in the snapshot")

// TooBigError says that a packet does not fit into what the carrier sends.
type TooBigError struct {
	MaxPacketBytes int // the longest packet that fits now
}

// Error names the limit.
func (e *TooBigError) Error() string {
	return fmt.Sprintf("packet too big for the carrier, which takes %d bytes", e.MaxPacketBytes)
}

// contained turns a panic at the root of a goroutine into the end of the part it serves.
func contained(run func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("dataplane: panic: %v\n%s", p, debug.Stack())
			}
		}()
		return run()
	}
}
