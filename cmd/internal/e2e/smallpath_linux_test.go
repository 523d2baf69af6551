package e2e

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/impair"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
	"github.com/aethertunnel/aethertunnel/control/api"
)

// smallPaths are those that carry less than QUIC's least packet over IPv4.
func smallPaths() []int { return []int{1124, 576} }

// Paths on which QUIC's own packets have to go in fragments carry all that others do: the join, the session, the lane and
// inner packets of any length.
func TestSmallPathsCarryEverything(t *testing.T) {
	t.Parallel()
	for _, size := range smallPaths() {
		t.Run("cable of "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
			labtest.Veth(t, g.Interface("eth0"), l.Interface("eth0"), size)
			g.address("eth0", gatewayUnderlay4+"/24")
			l.address("eth0", laptopUnderlay4+"/24")
			checkSmallPath(t, g, l)
		})
		t.Run("cable of "+strconv.Itoa(size)+" at the member alone", func(t *testing.T) {
			t.Parallel()
			g, l, r := newMachine(t, "gateway"), newMachine(t, "laptop"), newMachine(t, "router")
			cable(g, "eth0", r, "wan0", []string{gatewayUnderlay4 + "/24"}, []string{"192.0.2.254/24"})
			cable(r, "lan0", l, "eth0", []string{"198.51.100.254/24"}, []string{"198.51.100.2/24"})
			narrow(t, r.Interface("lan0"), l.Interface("eth0"), size)
			g.route("0.0.0.0/0", "192.0.2.254")
			l.route("0.0.0.0/0", "198.51.100.254")
			forwards(t, r)
			checkSmallPath(t, g, l)
		})
		t.Run("routers that tell of "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l, _ := smallMiddle(t, size)
			checkSmallPath(t, g, l)
		})
		t.Run("silent routers of "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l, routers := smallMiddle(t, size)
			for _, r := range routers {
				filter(t, r, nftables.ChainHookOutput, isICMP())
			}
			checkSmallPath(t, g, l)
		})
		t.Run("link that loses what is longer than "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
			link := labtest.Emulate(t, g.Interface("eth0"), l.Interface("eth0"), lab.EmulatorConfig{Seed: 17})
			g.address("eth0", gatewayUnderlay4+"/24")
			l.address("eth0", laptopUnderlay4+"/24")
			if err := link.SetBoth(impair.Impairments{Delay: 2 * time.Millisecond, MTU: size}); err != nil {
				t.Fatal(err)
			}
			checkSmallPath(t, g, l)
		})
	}
}

// A member comes back to a gateway that was killed, over a small path as over any.
func TestASmallPathAfterACrash(t *testing.T) {
	t.Parallel()
	g, l, routers := smallMiddle(t, 576)
	for _, r := range routers {
		filter(t, r, nftables.ChainHookOutput, isICMP())
	}
	gateway := gatewayUp(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	bothByLane(t, gateway, member)
	gateway.kill()
	gateway = g.up("gateway").listening()
	begin := time.Now()
	bothByLane(t, gateway, member)
	t.Logf("a new lane %v after the gateway listens", time.Since(begin))
	pingsOfAllLengths(t, l, gateway.address4(), member.status().Device.MTU)
}

// Where not even fragments pass, the error says what is wrong, whether routers tell of it or not.
func TestAPathThatFiltersFragmentsIsNamed(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"routers that tell": false, "silent routers": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, l, routers := smallMiddle(t, 1124)
			for _, r := range routers {
				filter(t, r, nftables.ChainHookForward, isFragment())
				if silent {
					filter(t, r, nftables.ChainHookOutput, isICMP())
				}
			}
			gateway := gatewayUp(g)
			l.start("laptop", "--name", "laptop", gateway.invite()).refused("path MTU below 1228", gatewayUnderlay4)
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		g, l, routers := smallMiddle(t, 1500)
		filter(t, routers[0], nftables.ChainHookOutput, isICMP())
		gateway := gatewayUp(g)
		invite := gateway.invite()
		gateway.stop()
		member := l.start("laptop", "--name", "laptop", invite)
		member.refused("no answer")
		if out := member.output.String(); strings.Contains(out, "MTU") {
			t.Errorf("a gateway that is not there is taken for a small path:\n%s", out)
		}
	})
}

// A path with so long a round trip that handshakes seem to go unanswered is taken for a small one until a lane knows better.
func TestAFarPathIsNoSmallOne(t *testing.T) {
	t.Parallel()
	g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
	link := labtest.Emulate(t, g.Interface("eth0"), l.Interface("eth0"), lab.EmulatorConfig{Seed: 19})
	g.address("eth0", gatewayUnderlay4+"/24")
	l.address("eth0", laptopUnderlay4+"/24")
	if err := link.SetBoth(impair.Impairments{Delay: 500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	var fragments atomic.Int64
	g.capture("eth0", func(frame []byte) bool {
		if binary.BigEndian.Uint16(frame[14+6:])&0x3fff != 0 {
			fragments.Add(1)
		}
		return true
	})
	gateway := gatewayUp(g)
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	for _, d := range []*daemon{gateway, member} {
		d.awaitStatus("by lane, and without fragments", func(s api.Status) bool {
			return byLane(s) && s.Peers[0].MaxPacketBytes > 1380 && !s.Peers[0].InFragments
		})
	}
	if fragments.Load() == 0 {
		t.Error("there were no fragments, so nothing was shown")
	}
}

// Paths of IPv6 of every size that it allows carry the handshake and TCP both ways.
func TestIPv6PathsOfAllSizesCarryTCP(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1500, 1400, 1280} {
		t.Run("cable of "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
			labtest.Veth(t, g.Interface("eth0"), l.Interface("eth0"), size)
			g.address("eth0", gatewayUnderlay6+"/64")
			l.address("eth0", laptopUnderlay6+"/64")
			checkPath(t, g, l)
		})
		t.Run("black hole of "+strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
			link := labtest.Emulate(t, g.Interface("eth0"), l.Interface("eth0"), lab.EmulatorConfig{Seed: 23})
			g.address("eth0", gatewayUnderlay6+"/64")
			l.address("eth0", laptopUnderlay6+"/64")
			if err := link.SetBoth(impair.Impairments{Delay: 2 * time.Millisecond, MTU: size}); err != nil {
				t.Fatal(err)
			}
			checkPath(t, g, l)
		})
	}
}

// narrow sets the MTU of both ends of a cable.
func narrow(t *testing.T, a, b lab.Interface, size int) {
	t.Helper()
	for _, i := range []lab.Interface{a, b} {
		if err := i.SetMTU(size); err != nil {
			t.Fatal(err)
		}
	}
}

// forwards makes machines routers.
func forwards(t *testing.T, machines ...*machine) {
	t.Helper()
	for _, m := range machines {
		if err := m.Forward(); err != nil {
			t.Fatal(err)
		}
	}
}

// smallMiddle puts two routers between a gateway and a member, with a narrow cable between them that neither host sees.
func smallMiddle(t *testing.T, size int) (gateway, laptop *machine, routers []*machine) {
	t.Helper()
	g, l := newMachine(t, "gateway"), newMachine(t, "laptop")
	near, far := newMachine(t, "near"), newMachine(t, "far")
	cable(g, "eth0", near, "lan0", []string{gatewayUnderlay4 + "/24"}, []string{"192.0.2.254/24"})
	cable(near, "wan0", far, "wan0", []string{"203.0.113.1/24"}, []string{"203.0.113.2/24"})
	cable(far, "lan0", l, "eth0", []string{"198.51.100.254/24"}, []string{"198.51.100.2/24"})
	narrow(t, near.Interface("wan0"), far.Interface("wan0"), size)
	g.route("0.0.0.0/0", "192.0.2.254")
	l.route("0.0.0.0/0", "198.51.100.254")
	near.route("198.51.100.0/24", "203.0.113.2")
	far.route("192.0.2.0/24", "203.0.113.1")
	forwards(t, near, far)
	return g, l, []*machine{near, far}
}

// filter makes a router drop what a rule of IPv4 matches.
func filter(t *testing.T, r *machine, hook *nftables.ChainHook, match []expr.Any) {
	t.Helper()
	err := r.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "small"})
		chain := c.AddChain(&nftables.Chain{
			Name: "hook" + strconv.Itoa(int(*hook)), Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook,
			Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match, &expr.Verdict{Kind: expr.VerdictDrop})})
		return c.Flush()
	})
	if err != nil {
		t.Fatalf("make a filter of %s: %v", r.Name(), err)
	}
}

func isICMP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMP}},
	}
}

// isFragment matches packets with an offset, or with more to come.
func isFragment() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x3f, 0xff}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}},
	}
}

// checkSmallPath makes a tunnel over a path and sends all kinds of packets through it.
func checkSmallPath(t *testing.T, g, l *machine) {
	t.Helper()
	onlyTheSessionInFragments := watchForFragmentedLanes(t, g, l)
	gateway := gatewayUp(g)
	begin := time.Now()
	member := l.up("laptop", "--name", "laptop", gateway.invite()).connected()
	t.Logf("connected after %v", time.Since(begin))
	bothByLane(t, gateway, member)
	t.Logf("by lane after %v", time.Since(begin))
	for _, d := range []*daemon{gateway, member} {
		d.awaitStatus("telling of fragments", func(s api.Status) bool {
			return len(s.Peers) == 1 && s.Peers[0].InFragments
		})
		if out := d.verb("status"); !strings.Contains(out, "path MTU below 1228") {
			t.Errorf("status of %s does not tell of the small path:\n%s", d, out)
		}
	}
	hub4, hub6, own4, own6 := gateway.address4(), gateway.address6(), member.address4(), member.address6()
	for _, way := range []struct {
		from *machine
		to   []netip.Addr
	}{{l, []netip.Addr{hub4, hub6}}, {g, []netip.Addr{own4, own6}}} {
		way.from.reaches(way.to...)
		for _, to := range way.to {
			pingsOfAllLengths(t, way.from, to, member.status().Device.MTU)
		}
	}
	carriesTCP(t, l, g, hub4)
	carriesTCP(t, g, l, own4)
	carriesTCP(t, l, g, hub6)
	carriesTCP(t, g, l, own6)
	onlyTheSessionInFragments()
}

// pingsOfAllLengths sends packets of lengths up to that of the device. Once the path is known, the sender of an IPv6 packet is
// told that it is longer than the tunnel promises to carry, and then the answer's.
func pingsOfAllLengths(t *testing.T, from *machine, to netip.Addr, most int) {
	t.Helper()
	headers := 20 + 8
	if to.Is6() {
		headers = 40 + 8
	}
	lengths := []int{headers + 8, 500, 515, 516, 517, 1023, 1063, 1064, 1065, 1279, 1280, 1281, most - 1, most}
	for n := 100; n < most; n += 107 {
		lengths = append(lengths, n)
	}
	told := 0
	for _, n := range lengths {
		ping := traffic.Ping{Bytes: n - headers, Timeout: 3 * time.Second}
		result, err := ping.Run(within(t, patience), from, to)
		for ; err == nil && result.Received == 0 && to.Is6() && n > 1280 && told < 2; told++ {
			result, err = ping.Run(within(t, patience), from, to)
		}
		if err != nil || result.Received == 0 {
			t.Errorf("%s sends %d bytes to %s: no answer, %v, %v", from.Name(), n, to, result.Errors, err)
		}
	}
}

// watchForFragmentedLanes watches what two machines send. It fails the test unless all but a few UDP packets have DF: those
// of the session may go without, those of the lane may not.
func watchForFragmentedLanes(t *testing.T, machines ...*machine) (check func()) {
	t.Helper()
	const most = 300
	var whole, fragments atomic.Int64
	for _, m := range machines {
		m.capture("eth0", func(frame []byte) bool {
			if d, ok := parseFrame(frame); !ok || d.protocol != unix.IPPROTO_UDP || !d.to.Addr().Is4() {
				return true
			}
			if flags := binary.BigEndian.Uint16(frame[14+6:]); flags == 0x4000 {
				whole.Add(1)
			} else {
				fragments.Add(1)
			}
			return true
		})
	}
	return func() {
		t.Helper()
		t.Logf("%d packets with DF, %d fragments", whole.Load(), fragments.Load())
		if fragments.Load() == 0 || fragments.Load() > most || whole.Load() < most {
			t.Errorf("%d packets with DF, %d fragments: want a few fragments", whole.Load(), fragments.Load())
		}
	}
}
