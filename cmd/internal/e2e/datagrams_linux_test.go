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

// deliveries is how many packets delivers sends.
const deliveries = 5

// strayWait is how long packets that must not arrive are waited for.
const strayWait = 500 * time.Millisecond

// delivers sends marked UDP packets from an address of the machine to a port of another and returns how many
// arrive. It waits no longer than until all have, and if none may, not for long.
func (m *machine) delivers(other *machine, from, to netip.AddrPort, may bool) int {
	m.t.Helper()
	wait := patience
	if !may {
		wait = strayWait
	}
	listener, err := other.ListenUDP(to.String())
	if err != nil {
		m.t.Fatal(err)
	}
	defer listener.Close()
	err = m.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range deliveries {
			if _, err := conn.Write([]byte(marker)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatalf("%s sends from %s to %s: %v", m.Name(), from, to, err)
	}
	if err := listener.SetReadDeadline(time.Now().Add(wait)); err != nil {
		m.t.Fatal(err)
	}
	arrived := 0
	buffer := make([]byte, 1500)
	for arrived < deliveries {
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
