//go:build windows || darwin

package tun

import (
	"errors"
	"fmt"
	"os"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

// queue moves single packets through wireguard's driver, which can only wait for one.
type queue struct {
	dev  wgtun.Device
	name string

	buf  [1][]byte // of one read; the only reader uses it
	size [1]int

	out    [1][]byte                       // what the only writer writes
	joined [Headroom + MaxPacketBytes]byte // its room
}

func newQueue(dev wgtun.Device, name string, _ Offloads) (*queue, error) {
	if n := dev.BatchSize(); n != 1 {
		return nil, fmt.Errorf("driver reads %d packets at once, want 1", n)
	}
	return &queue{dev: dev, name: name}, nil
}

// readPackets reads one packet.
func (q *queue) readPackets(packets []Packet, _ int, block bool) (int, error) {
	if !block || len(packets) == 0 {
		return 0, nil
	}
	for {
		q.buf[0] = packets[0].Data[:Headroom+MaxPacketBytes]
		n, err := q.dev.Read(q.buf[:], q.size[:], Headroom)
		switch {
		case errors.Is(err, os.ErrClosed):
			return 0, ErrClosed
		case err != nil:
			return 0, fmt.Errorf("read TUN device %s: %w", q.name, err)
		case n > 0:
			packets[0].Data, packets[0].Offload = q.buf[0][Headroom:Headroom+q.size[0]], Offload{}
			return 1, nil
		}
	}
}

// writePacket joins the pieces, since the driver wants the packet in one.
func (q *queue) writePacket(pieces [][]byte, o Offload) error {
	if err := (Offloads{}).refuse(pieces, o); err != nil {
		return err
	}
	end := Headroom
	for _, piece := range pieces {
		end += copy(q.joined[end:], piece)
	}
	q.out[0] = q.joined[:end]
	switch _, err := q.dev.Write(q.out[:], Headroom); {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrClosed):
		return ErrClosed
	default:
		return &RefusedError{Err: err}
	}
}
