package e2e

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/impair"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// Paths of every usual size, known to the machines or not, carry the handshake and TCP both ways.
func TestPathsOfAllSizesCarryTCP(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1500, 1400, 1300, 1280} {
		t.Run("cable of "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l := twoMachines(t)
			for _, m := range []*machine{g, l} {
				if err := m.Interface("eth0").SetMTU(size); err != nil {
					t.Fatal(err)
				}
			}
			checkPath(t, g, l)
		})
		t.Run("black hole of "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
			link := labtest.Emulate(t, g.Interface("eth0"), l.Interface("eth0"), lab.EmulatorConfig{Seed: 13})
			g.address("eth0", gatewayUnderlay4+"/24")
			l.address("eth0", laptopUnderlay4+"/24")
			if err := link.SetBoth(impair.Impairments{Delay: 2 * time.Millisecond, MTU: size}); err != nil {
				t.Fatal(err)
			}
			checkPath(t, g, l)
		})
	}
}

// checkPath makes a tunnel over a path and sends through it.
func checkPath(t *testing.T, g, l *machine) {
	t.Helper()
	gateway := gatewayUp(g)
	begin := time.Now()
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	t.Logf("connected after %v", time.Since(begin))
	hub4, hub6 := gateway.address4(), gateway.address6()
	l.reaches(hub4, hub6)
	carriesTCP(t, l, g, hub4)
	carriesTCP(t, g, l, member.address4())
	// IPv6 wants 1280 bytes (RFC 8200 section 5), which cross the smaller paths in two pieces.
	carriesTCP(t, l, g, hub6)
	carriesTCP(t, g, l, member.address6())
	for _, s := range []struct {
		from *daemon
		to   netip.Addr
	}{{member, hub4}, {gateway, member.address4()}} {
		most := s.from.status().Peers[0].MaxPacketBytes
		if most >= s.from.status().Device.MTU {
			continue // everything that the device takes fits
		}
		if err := pathIsTold(t, s.from.machine, s.to, most); err != nil {
			t.Error(err)
		}
	}
}

// pathIsTold checks that a machine is told what fits when it sends more.
func pathIsTold(t *testing.T, m *machine, to netip.Addr, most int) error {
	t.Helper()
	const headers = 20 + 8
	ping := traffic.Ping{Bytes: most - headers + 1, DontFragment: true, Timeout: 2 * time.Second}
	result, err := ping.Run(within(t, patience), m, to)
	if err != nil {
		return err
	}
	for _, e := range result.Errors {
		if e.MTU > 0 && e.MTU <= most {
			return nil
		}
	}
	return fmt.Errorf("%s sends %d bytes to %s, of which %d fit, and is not told: %d answered, %v",
		m.Name(), most+1, to, most, result.Received, result.Errors)
}
