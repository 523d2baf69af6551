package e2e

import (
	"net"
	"net/netip"
	"time"
)

// sendMarked sends marked UDP packets to each address and returns how many the kernel took.
func (m *machine) sendMarked(to ...netip.AddrPort) int {
	m.t.Helper()
	taken := 0
	for _, address := range to {
		err := m.Do(func() error {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(address))
			if err != nil {
				return nil // no way there: nothing was sent
			}
			for range 3 {
				// A host that has answered that nobody listens makes a write fail: it arrived all the same.
				if _, err := conn.Write([]byte(marker)); err == nil {
					taken++
				}
			}
			return conn.Close()
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return taken
}

// deliverWait is how long a packet may be under way on a cable.
const deliverWait = 500 * time.Millisecond

// delivers sends marked UDP packets from an address of the machine to a port of another and returns how many
// arrive.
func (m *machine) delivers(other *machine, from, to netip.AddrPort) int {
	m.t.Helper()
	listener, err := other.ListenUDP(to.String())
	if err != nil {
		m.t.Fatal(err)
	}
	defer listener.Close()
	const packets = 5
	err = m.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range packets {
			if _, err := conn.Write([]byte(marker)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatalf("%s sends from %s to %s: %v", m.Name(), from, to, err)
	}
	if err := listener.SetReadDeadline(time.Now().Add(deliverWait)); err != nil {
		m.t.Fatal(err)
	}
	arrived := 0
	buffer := make([]byte, 1500)
	for arrived < packets {
		n, err := listener.Read(buffer)
		if err != nil {
			break // the deadline
		}
		if string(buffer[:n]) == marker {
			arrived++
		}
	}
	return arrived
}
