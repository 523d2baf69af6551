package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// Strangers throw everything at the gateway's port that may look like its protocol: random bytes, QUIC
// headers around nothing, packets of the member's own, cut, changed, or just sent again. The member's session
// does not notice.
func TestGarbageAtTheGatewaysPort(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	stranger := otherMachine(g)
	gateway := gatewayUp(g)
	captured := collect(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	l.reaches(gateway.address4(), gateway.address6())
	sessions, remote := gateway.sessions(), gateway.status().Peers[0].Remote
	before, err := lab.ProcessUsage(gateway.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var throwing sync.WaitGroup
	defer throwing.Wait()
	defer cancel()
	thrown := 0
	throwing.Go(func() { thrown = throw(ctx, t, stranger, captured) })
	result, err := traffic.Ping{Count: 50, Interval: 40 * time.Millisecond, Timeout: 3 * time.Second}.Run(
		within(t, patience), l, gateway.address4())
	if err != nil || result.Lost() > 0 {
		t.Errorf("under fire %d of %d pings are lost, %v", result.Lost(), result.Sent, err)
	}
	cancel()
	throwing.Wait()
	t.Logf("%d datagrams thrown, rtt %v", thrown, result.RTT)
	if thrown < 1000 {
		t.Errorf("only %d datagrams were thrown", thrown)
	}
	l.reaches(gateway.address4(), gateway.address6())
	if n := gateway.sessions() - sessions; n != 0 {
		t.Errorf("%d sessions were made anew", n)
	}
	if now := gateway.status().Peers[0].Remote; now != remote {
		t.Errorf("replayed packets have moved the session from %s to %s", remote, now)
	}
	after, err := lab.ProcessUsage(gateway.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	counted := uint64(0)
	for reason, n := range gateway.status().Drops {
		if strings.HasPrefix(reason, "udp_") {
			counted += n
		}
	}
	if counted == 0 {
		t.Error("nothing of what was thrown has been counted")
	}
	t.Logf("%d of the datagrams are counted as dropped: %v", counted, gateway.status().Drops)
	if gateway.status().Drops["udp_payload_decrypt_error"]+gateway.status().Drops["udp_duplicate"] == 0 {
		t.Error("neither forged nor replayed packets of the session have been counted")
	}
	const bound = 150 << 20
	if grown := after.PeakRSSBytes - before.PeakRSSBytes; grown > bound {
		t.Errorf("the gateway has grown by %d MiB", grown>>20)
	}
	// Whoever knows nothing still gets in by an invite, and nobody else does.
	member.stop()
	l.up("laptop").connected()
}

// collect keeps the payloads of what members send to the gateway.
func collect(g *machine) func() [][]byte {
	var mu sync.Mutex
	var payloads [][]byte
	const most = 200
	g.capture("eth0", func(frame []byte) bool {
		d, ok := parseFrame(frame)
		if ok && d.protocol == unix.IPPROTO_UDP && d.to.Port() == 443 {
			header := 14 + 20 + 8
			if d.to.Addr().Is6() {
				header += 20
			}
			mu.Lock()
			defer mu.Unlock()
			if len(payloads) < most {
				payloads = append(payloads, bytes.Clone(frame[header:]))
			}
		}
		return true
	})
	return func() [][]byte {
		mu.Lock()
		defer mu.Unlock()
		return payloads
	}
}

// throw sends bursts of garbage until ctx ends and returns how many datagrams that were.
func throw(ctx context.Context, t *testing.T, m *machine, captured func() [][]byte) int {
	conn, err := m.Dial(ctx, "udp", "198.51.100.1:443")
	if err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	const burst = 20
	for thrown := 0; ; thrown += burst {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return thrown
		}
		for range burst {
			if _, err := conn.Write(garbage(rng, captured())); err != nil {
				// An answer of the gateway's machine to an earlier one is no reason to stop.
				continue
			}
		}
	}
}

// garbage makes one datagram.
func garbage(rng *rand.Rand, captured [][]byte) []byte {
	random := make([]byte, rng.IntN(1400)+1)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	genuine := bytes.Clone(captured[rng.IntN(len(captured))])
	switch rng.IntN(7) {
	case 0:
		return random
	case 1: // a long header of QUIC v1 (RFC 9000 section 17.2) around anything, of every type
		random = append(random, make([]byte, 1250)...)
		random[0] |= 0xc0
		binary.BigEndian.PutUint32(random[1:], 1)
		return random[:1250]
	case 2: // an unknown version, which wants an answer
		random = append(random, make([]byte, 1250)...)
		random[0] |= 0xc0
		return random[:1250]
	case 3: // a short header
		random[0] = random[0]&0x3f | 0x40
		return random
	case 4: // replayed
		return genuine
	case 5: // truncated
		return genuine[:rng.IntN(len(genuine))+1]
	}
	genuine[rng.IntN(len(genuine))] ^= 1 << rng.IntN(8)
	return genuine
}

// What comes into the tunnel's device and is no packet, or none that may be sent on, is counted and goes
// nowhere.
func TestGarbageInTheTunnelDevice(t *testing.T) {
	t.Parallel()
	gateway, member := tunnel(t)
	l := member.machine
	device := member.status().Device.Name
	whole := echoPacket(t, member.address4(), gateway.address4())
	unknown := echoPacket(t, member.address4(), member.address4().Next().Next())
	stray := bytes.Clone(unknown)
	copy(stray[16:], []byte{203, 0, 113, 9})
	for reason, packet := range map[string][]byte{
		"malformed":           whole[:15],
		"source_not_assigned": echoPacket(t, gateway.address4().Next().Next().Next(), gateway.address4()),
		"no_route":            stray,
		"not_forwardable":     append(append(bytes.Clone(whole[:16]), 224, 0, 0, 1), whole[20:]...),
	} {
		before := member.status().Drops[reason]
		inject(t, l, device, packet)
		member.awaitStatus("counting "+reason, func(s api.Status) bool { return s.Drops[reason] > before })
	}
	l.reaches(gateway.address4(), gateway.address6())
}

// inject sends a packet out of a device as it is.
func inject(t *testing.T, m *machine, device string, packet []byte) {
	t.Helper()
	err := m.Do(func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		protocol := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_IP))
		return unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index})
	})
	if err != nil {
		t.Fatalf("send on %s: %v", device, err)
	}
}
