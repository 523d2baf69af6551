package e2e

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
	"github.com/aethertunnel/aethertunnel/control/api"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/dataplane/lane"
)

// byLane reports whether packets to the only peer go over a lane.
func byLane(s api.Status) bool {
	return len(s.Peers) == 1 && s.Peers[0].Path == "lane" && s.Peers[0].Cipher != ""
}

// notByLane reports whether no peer is shown with a lane.
func notByLane(s api.Status) bool {
	return !slices.ContainsFunc(s.Peers, func(p api.Peer) bool { return p.Path == "lane" || p.Cipher != "" })
}

// bothByLane waits until both daemons show a lane.
func bothByLane(t *testing.T, gateway, member *daemon) {
	t.Helper()
	gateway.awaitStatus("using a lane", byLane)
	member.awaitStatus("using a lane", byLane)
}

// laneTunnel makes a tunnel over IPv4 alone, with a lane.
func laneTunnel(t *testing.T) (gateway, member *daemon) {
	t.Helper()
	g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
	cable(g, "eth0", l, "eth0", []string{gatewayUnderlay4 + "/24"}, []string{laptopUnderlay4 + "/24"})
	l.address("eth0", spareAddress)
	gateway = gatewayUp(g)
	member = l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	bothByLane(t, gateway, member)
	return gateway, member
}

// spareAddress is one that the member's machine has and nobody uses.
const spareAddress = "10.9.9.9/32"

// disturb changes something about the network of a member's machine and takes it back, which makes the member ask its
// gateway on the session for a sign of life.
func disturb(t *testing.T, member *daemon) {
	t.Helper()
	const other = "10.9.9.10/32"
	device := member.machine.Interface("eth0")
	if err := errors.Join(device.ChangeAddress(spareAddress, other), device.ChangeAddress(other, spareAddress)); err != nil {
		t.Fatal(err)
	}
}

// Both ends of a tunnel come to a lane by themselves, and show it with its cipher.
func TestTunnelsComeToALane(t *testing.T) {
	t.Parallel()
	gateway, member := tunnel(t)
	begin := time.Now()
	bothByLane(t, gateway, member)
	t.Logf("a lane at both ends %v after the first packet", time.Since(begin))
	at, there := gateway.status().Peers[0], member.status().Peers[0]
	if at.Cipher != there.Cipher {
		t.Errorf("ciphers %q and %q", at.Cipher, there.Cipher)
	}
	if out := member.verb("status", "--json"); !strings.Contains(out, `"path": "lane"`) {
		t.Errorf("status --json does not tell of the lane:\n%s", out)
	}
	before := member.status().Peers[0]
	member.machine.reaches(gateway.address4(), gateway.address6())
	after := member.status().Peers[0]
	if after.SentPackets < before.SentPackets+6 || after.ReceivedPackets < before.ReceivedPackets+6 {
		t.Errorf("pings are not counted: before %+v, after %+v", before, after)
	}
}

// connectionIDs are those of the short headers that a node has received.
type connectionIDs struct {
	mu    sync.Mutex
	seen  map[lane.ConnectionID]int
	ports netip.AddrPort // of the sender, as last seen
}

// see takes a frame; it is for machine.capture.
func (c *connectionIDs) see(to netip.Addr) func(frame []byte) bool {
	return func(frame []byte) bool {
		d, ok := parseFrame(frame)
		if !ok || d.protocol != unix.IPPROTO_UDP || d.to.Addr() != to {
			return true
		}
		for _, payload := range segmentsOf(frame[14+20+8:]) {
			c.mu.Lock()
			c.seen[lane.ConnectionID(payload[1:])]++
			c.ports = d.from
			c.mu.Unlock()
		}
		return true
	}
}

// segmentsOf is the QUIC packet in a datagram, unless it has a long header. Of several that the kernel has not taken
// apart yet the first tells the connection ID of all.
func segmentsOf(payload []byte) [][]byte {
	if len(payload) < lane.MinPacketBytes || payload[0]&0x80 != 0 {
		return nil
	}
	return [][]byte{payload}
}

// ofSessions are all but the one that most packets have: that is the lane's.
func (c *connectionIDs) ofSessions() (ids []lane.ConnectionID, from netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := lane.ConnectionID{}
	for id, n := range c.seen {
		if n > c.seen[most] {
			most = id
		}
	}
	for id := range maps.Keys(c.seen) {
		if id != most {
			ids = append(ids, id)
		}
	}
	return ids, c.ports
}

// resetSession makes a member's session end as if its gateway had lost all knowledge of it: by the stateless reset that
// such a gateway sends (RFC 9000 section 10.3). The gateway knows nothing of that, and the lane is left alone.
func resetSession(t *testing.T, gateway *daemon, seen *connectionIDs) {
	t.Helper()
	key, err := store.LoadKey(gateway.state)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Encode()
	if err != nil {
		t.Fatal(err)
	}
	static, err := hkdf.Key(sha256.New, secret, nil, "aethertunnel stateless reset v1 *:443", len(quic.StatelessResetKey{}))
	if err != nil {
		t.Fatal(err)
	}
	ids, to := seen.ofSessions()
	if len(ids) == 0 {
		t.Fatal("no packet of a session was seen")
	}
	from := netip.MustParseAddrPort(gatewayUnderlay4 + ":443")
	for _, id := range ids {
		token := hmac.New(sha256.New, static)
		token.Write(id[:])
		reset := make([]byte, 24, 40)
		_, _ = rand.Read(reset) // never fails
		reset[0] = reset[0]&0x3f | 0x40
		spoof(t, gateway.machine, from, to, append(reset, token.Sum(nil)[:16]...))
	}
}

// spoof sends a UDP datagram from a port that a daemon has.
func spoof(t *testing.T, m *machine, from, to netip.AddrPort, payload []byte) {
	t.Helper()
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in lengths and the header's checksum
	source, destination := from.Addr().As4(), to.Addr().As4()
	copy(p[12:], source[:])
	copy(p[16:], destination[:])
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	err := m.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, append(p, payload...), 0, &unix.SockaddrInet4{Addr: destination})
	})
	if err != nil {
		t.Fatalf("send a datagram: %v", err)
	}
}

// A flow does not lose a packet while the session beside it dies and is made anew.
func TestNoPacketIsLostWhileTheSessionIsMadeAnew(t *testing.T) {
	t.Parallel()
	gateway, member := laneTunnel(t)
	seen := &connectionIDs{seen: map[lane.ConnectionID]int{}}
	gateway.machine.capture("eth0", seen.see(netip.MustParseAddr(gatewayUnderlay4)))
	flow := traffic.Paced{Bytes: 200, PacketsPerSecond: 10_000, Duration: 5 * time.Second}
	if raceDetector {
		flow.PacketsPerSecond = 1000
	}
	type outcome struct {
		traffic.PacedResult
		from *daemon
		err  error
	}
	results := make(chan outcome, 2)
	for _, way := range []struct {
		from, to *daemon
	}{{member, gateway}, {gateway, member}} {
		server := labtest.Serve(t, way.to.machine, netip.AddrPortFrom(way.to.address4(), 0).String())
		go func() {
			r, err := flow.Run(t.Context(), way.from.machine, server.Addr())
			results <- outcome{r, way.from, err}
		}()
	}
	for n := range 2 {
		sent := member.status().Peers[0].SentPackets
		member.awaitStatus("sending", func(s api.Status) bool { return s.Peers[0].SentPackets > sent+500 })
		since, sinceThere := *member.status().Peers[0].Since, *gateway.status().Peers[0].Since
		disturb(t, member)
		member.awaitStatus("heard on its session", func(api.Status) bool {
			ids, _ := seen.ofSessions()
			return len(ids) > n
		})
		begin := time.Now()
		resetSession(t, gateway, seen)
		member.awaitStatus("on another session", func(s api.Status) bool {
			return len(s.Peers) == 1 && s.Peers[0].Connected && !s.Peers[0].Since.Equal(since)
		})
		t.Logf("another session after %v", time.Since(begin))
		if p := gateway.status().Peers[0]; p.Since == nil || p.Since.Equal(sinceThere) {
			t.Errorf("the gateway knows of no other session: %+v", p)
		}
	}
	for range 2 {
		r := <-results
		// On a machine that is too busy to run the daemon, packets do not get as far as to it.
		lost := r.Lost() - int64(unread(t, r.from))
		if r.err != nil || r.Sent == 0 || lost > 0 || r.Duplicates > 0 || r.Reordered > 0 {
			t.Errorf("%+v, %v", r.PacedResult, r.err)
		}
		t.Logf("%d packets sent, %.0f per second, %d lost, %d found the device's queue full", r.Sent, r.SentPerSecond(),
			r.Lost(), unread(t, r.from))
	}
	bothByLane(t, gateway, member)
}

// unread is how many packets found the queue of a daemon's device full.
func unread(t *testing.T, d *daemon) uint64 {
	t.Helper()
	var dropped uint64
	err := d.machine.Do(func() error {
		link, err := netlink.LinkByName(d.status().Device.Name)
		if err != nil {
			return err
		}
		dropped = link.Attrs().Statistics.TxDropped
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

// A revoked member has no lane any more once the command has ended.
func TestRevocationTakesTheLane(t *testing.T) {
	t.Parallel()
	g, l := twoMachines(t)
	gateway := gatewayUp(g)
	member := l.start("laptop", "--name", "laptop", gateway.invite()).connected()
	bothByLane(t, gateway, member)
	hub, own := gateway.address4(), member.address4()
	gateway.verb("nodes", "revoke", "laptop")
	if s := gateway.status(); !notByLane(s) {
		t.Errorf("the lane is still there: %+v", s.Peers)
	}
	g.doesNotReach(own)
	l.doesNotReach(hub)
	member.refused("no longer admits this node")
}

// With either end goes the lane of the other.
func TestALaneEndsWithEitherEnd(t *testing.T) {
	t.Parallel()
	gateway, member := laneTunnel(t)
	member.stop()
	gateway.awaitStatus("without a lane", notByLane)
	member = member.machine.up("laptop").connected()
	bothByLane(t, gateway, member)
	gateway.stop()
	member.awaitStatus("without a lane", notByLane)
}

// A crash of either end is noticed by its silence.
func TestALaneEndsWithACrash(t *testing.T) {
	t.Parallel()
	gateway, member := laneTunnel(t)
	begin := time.Now()
	gateway.kill()
	member.machine.doesNotReach(netip.MustParseAddr("10.77.0.1"))
	member.awaitStatus("without a lane", notByLane)
	t.Logf("the member gives the lane up after %v", time.Since(begin))
	gateway = gateway.machine.up("gateway").listening()
	bothByLane(t, gateway, member)
	member.machine.reaches(gateway.address4())
}

// A member that moves keeps its lane, like its session.
func TestALaneRoams(t *testing.T) {
	t.Parallel()
	gateway, member := laneTunnel(t)
	l := member.machine
	s := newStream(t, l, gateway.machine, gateway.address4())
	s.flows(enough)
	before, since := gateway.sessions(), *member.status().Peers[0].Since
	for i, to := range []string{"192.0.2.77/24", "192.0.2.78/24"} {
		from := []string{laptopUnderlay4 + "/24", "192.0.2.77/24"}[i]
		begin := time.Now()
		changeAddress(t, l, from, to)
		s.flows(enough)
		t.Logf("the stream flows %v after the change of address", time.Since(begin))
		gateway.awaitStatus("seeing the new address, by lane", func(s api.Status) bool {
			return byLane(s) && strings.HasPrefix(s.Peers[0].Remote, strings.TrimSuffix(to, "/24")+":")
		})
		member.awaitStatus("using the lane", byLane)
	}
	s.finish()
	if n := gateway.sessions() - before; n != 0 {
		t.Errorf("%d new sessions were made", n)
	}
	if p := member.status().Peers[0]; !p.Since.Equal(since) {
		t.Errorf("the member has a session since %s, before the change it had one since %s", p.Since, since)
	}
}

// A gateway that is stopped or killed comes back to a new lane, and a stream goes on.
func TestAGatewayThatComesBackMakesANewLane(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gateway, member := laneTunnel(t)
			s := newStream(t, gateway.machine, member.machine, member.address4())
			s.flows(enough)
			gateway.signal(signal)
			gateway.wait()
			gateway = gateway.machine.up("gateway").listening()
			begin := time.Now()
			bothByLane(t, gateway, member)
			t.Logf("a new lane %v after the gateway listens", time.Since(begin))
			s.flows(enough)
			bothByLane(t, gateway, member)
			s.finish()
		})
	}
}

// A stock client and a member with a lane share a gateway.
func TestAStockClientBesideALane(t *testing.T) {
	t.Parallel()
	gateway, member := laneTunnel(t)
	other := otherMachine(gateway.machine)
	other.route("192.0.2.0/24", "198.51.100.1")
	var invite api.Invite
	if err := json.Unmarshal([]byte(gateway.verb("invite", "--stock", "--json")), &invite); err != nil {
		t.Fatal(err)
	}
	conn := dialStock(t, other, invite)
	assigned, err := conn.ReceiveAddressAssignment(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	own := netip.Addr{}
	for _, a := range assigned {
		if a.IPPrefix.Addr().Is4() {
			own = a.IPPrefix.Addr()
		}
	}
	hub := gateway.address4()
	answer := exchangeEcho(t, conn, echoPacket(t, own, hub))
	if from, to := addressesIn(answer); from != hub || to != own {
		t.Errorf("the answer is %x", answer)
	}
	member.machine.reaches(hub)
	paths := map[string]int{}
	for _, p := range gateway.status().Peers {
		if p.Connected {
			paths[p.Path]++
		}
	}
	if paths["lane"] != 1 || paths["session"] != 1 {
		t.Errorf("the gateway's paths are %v", paths)
	}
}
