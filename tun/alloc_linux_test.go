package tun

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoAllocationPerPacket: reading and writing, super-packets and small ones.
func TestNoAllocationPerPacket(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, size := range []int{64, 60_000} {
		withConfig(t, Config{Name: "at0", MTU: 1380}, func(d Device) error {
			if err := quiet(d); err != nil {
				return err
			}
			s, err := udpSocket(peer4, 1000)
			if err != nil {
				return err
			}
			defer unix.Close(s)
			payload, packets := bytes.Repeat([]byte{7}, size), slots(2)
			buf := packets[0].Data
			var got Packet
			read := func() {
				if _, err := unix.Write(s, payload); err != nil {
					t.Error(err)
				}
				packets[0].Data = buf
				if n, err := d.ReadPackets(packets, 0); n != 1 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
				got = packets[0]
			}
			if n := testing.AllocsPerRun(100, read); n != 0 {
				t.Errorf("%d bytes: %v allocations for a read", size, n)
			}
			copy(got.Data[16:20], host4.AsSlice()) // so that the host takes it; the checksum is the host's to check
			pieces := inPieces(got)
			if n := testing.AllocsPerRun(100, func() {
				if err := d.WritePacket(pieces, got.Offload); err != nil {
					t.Error(err)
				}
			}); n != 0 {
				t.Errorf("%d bytes: %v allocations for a write", size, n)
			}
			return nil
		})
	}
}
