package control

import (
	"errors"

	"github.com/aethertunnel/aethertunnel/control/masque"
	"github.com/aethertunnel/aethertunnel/dataplane"
)

// carrier lends a session to the dataplane.
type carrier struct{ *masque.Session }

var _ dataplane.Carrier = carrier{}

// SendPacket passes a packet on, with the error for a long one in the dataplane's words.
func (c carrier) SendPacket(packet []byte) error {
	err := c.Session.SendPacket(packet)
	if tooLarge, ok := errors.AsType[*masque.PacketTooLargeError](err); ok {
		return &dataplane.TooBigError{MaxPacketBytes: tooLarge.MaxPacketBytes}
	}
	return err
}

// MaxPacketBytes implements [dataplane.Carrier].
func (c carrier) MaxPacketBytes() int { return c.Session.MaxPacketSize() }
