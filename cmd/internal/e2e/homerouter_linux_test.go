package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Addresses of a home behind a router with address translation.
const (
	homeLAN, homeHost        = "192.168.1.1", "192.168.1.2" // the router's, and the gateway's
	homeOutside, homeVisitor = "203.0.113.1", "203.0.113.2" // the router's, and the member's
	// portOfOthers is mapped to another host of the home, freePort is what a gateway gets instead.
	portOfOthers, freePort = 443, 40443
)

// A homeRouter forwards ports on request, as home routers do: it answers PCP (RFC 6887), NAT-PMP (RFC 6886)
// or UPnP, and what it grants is a rule in the kernel of its machine.
type homeRouter struct {
	t       *testing.T
	machine *machine
	speaks  string       // "PCP", "NAT-PMP", "UPnP" or nothing
	socket  *net.UDPConn // takes the requests of the first two

	mu     sync.Mutex // guards the rest
	booted time.Time
	mapped []portMapping
}

// A portMapping leads from a port outside to one inside.
type portMapping struct {
	outside uint16
	inside  netip.AddrPort
}

// behindRouter makes a gateway's machine in a home, whose router translates addresses, and a machine outside.
func behindRouter(t *testing.T, speaks string) (gateway, outside *machine, router *homeRouter) {
	t.Helper()
	gateway, outside = newMachine(t, "gateway"), newMachine(t, "laptop")
	r := &homeRouter{t: t, machine: newMachine(t, "router"), speaks: speaks, booted: time.Now().Add(-time.Hour)}
	cable(gateway, "eth0", r.machine, "lan0", []string{homeHost + "/24"}, []string{homeLAN + "/24"})
	cable(r.machine, "wan0", outside, "eth0", []string{homeOutside + "/24"}, []string{homeVisitor + "/24"})
	gateway.route("0.0.0.0/0", homeLAN)
	translate(t, r.machine)
	r.closeOutside()
	switch speaks {
	case "PCP":
		r.socket = r.serve(":5351", r.answerPCP)
	case "NAT-PMP":
		r.socket = r.serve(":5351", r.answerNATPMP)
	case "UPnP":
		r.serveUPnP()
	}
	return gateway, outside, r
}

// closeOutside lets in from outside what answers, and what is mapped, as every home router does.
func (r *homeRouter) closeOutside() {
	r.t.Helper()
	const established, related, mapped = 1 << 1, 1 << 2, 1 << 5 // bits of ct state, and DNAT of ct status
	bits := func(key expr.CtKey, mask uint32) []expr.Any {
		return []expr.Any{
			&expr.Ct{Register: 1, Key: key},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4),
			},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}
	}
	err := r.machine.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "firewall"})
		for name, hook := range map[string]*nftables.ChainHook{
			"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
		} {
			chain := c.AddChain(&nftables.Chain{
				Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook,
				Priority: nftables.ChainPriorityFilter,
			})
			for _, exprs := range [][]expr.Any{
				bits(expr.CtKeySTATE, established|related),
				bits(expr.CtKeySTATUS, mapped),
				append(fromOutside(), &expr.Verdict{Kind: expr.VerdictDrop}),
			} {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
			}
		}
		return c.Flush()
	})
	if err != nil {
		r.t.Fatalf("make the router's firewall: %v", err)
	}
}

// fromOutside matches what comes in by the uplink.
func fromOutside() []expr.Any {
	name := append([]byte("wan0"), make([]byte, unix.IFNAMSIZ-len("wan0"))...)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

// serve answers datagrams to a port of the router inside, until the end of the test.
func (r *homeRouter) serve(port string, answer func(request []byte, from netip.AddrPort) []byte) *net.UDPConn {
	r.t.Helper()
	conn, err := r.machine.ListenUDP(homeLAN + port)
	if err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil:
				continue // a host that has gone, which an ICMP message tells
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			if reply := answer(buffer[:n], from); reply != nil {
				if _, err := conn.WriteToUDPAddrPort(reply, from); err != nil {
					r.t.Errorf("the router's answer to %s: %v", from, err)
				}
			}
		}
	}()
	r.t.Cleanup(func() {
		_ = conn.Close() // ends the loop
		<-ended
	})
	return conn
}

// grant maps the wanted port outside to one of a host inside, or another one when that is taken, and returns
// it. 0 seconds end the mapping. The caller holds the lock.
func (r *homeRouter) grant(wanted uint16, inside netip.AddrPort, lifetimeSeconds uint32) (outside uint16) {
	same := func(m portMapping) bool { return m.inside == inside }
	i := slices.IndexFunc(r.mapped, same)
	switch {
	case lifetimeSeconds == 0:
		r.mapped = slices.DeleteFunc(r.mapped, same)
	case i >= 0:
		outside = r.mapped[i].outside
	case wanted == portOfOthers || wanted == 0:
		outside = freePort
	default:
		outside = wanted
	}
	if lifetimeSeconds > 0 && i < 0 {
		r.mapped = append(r.mapped, portMapping{outside, inside})
	}
	r.forward()
	return outside
}

// forward makes the kernel of the router's machine do what is mapped. The caller holds the lock.
func (r *homeRouter) forward() {
	err := r.machine.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "mappings"}
		c.AddTable(table)
		c.DelTable(table)
		c.AddTable(table)
		chain := c.AddChain(&nftables.Chain{
			Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		})
		for _, m := range r.mapped {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(fromOutside(),
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(m.outside)},
				&expr.Immediate{Register: 1, Data: m.inside.Addr().AsSlice()},
				&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(m.inside.Port())},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
			)})
		}
		return c.Flush()
	})
	if err != nil {
		r.t.Errorf("forward %v on the router: %v", r.mapped, err)
	}
}

// restart makes the router lose what it has in memory, as when its power fails: mappings, translations, and
// the time since its start.
func (r *homeRouter) restart() {
	r.t.Helper()
	r.mu.Lock()
	r.mapped, r.booted = nil, time.Now()
	r.forward()
	r.mu.Unlock()
	forget(r.t, r.machine)
}

// mappings returns what is mapped now.
func (r *homeRouter) mappings() []portMapping {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.mapped)
}

// epoch is the time since the start, as both protocols tell it. The caller holds the lock.
func (r *homeRouter) epoch(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(time.Since(r.booted)/time.Second))
}

// answerPCP serves the operations ANNOUNCE and MAP, RFC 6887 sections 7, 11 and 14.
func (r *homeRouter) answerPCP(request []byte, from netip.AddrPort) []byte {
	const (
		announce, mapPort                 = 0, 1 // operations
		badVersion, malformed             = 1, 3 // results
		unsupportedOperation, otherClient = 4, 12
		headerBytes, mapBytes             = 24, 60
		response                          = 0x80
	)
	if len(request) < 2 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	result, lifetime := byte(0), uint32(0)
	var content []byte
	switch {
	case request[0] != 2:
		result = badVersion
	case len(request) < headerBytes:
		result = malformed
	case netip.AddrFrom16([16]byte(request[8:24])).Unmap() != from.Addr():
		result = otherClient
	case request[1] == announce:
	case request[1] == mapPort && len(request) == mapBytes && request[36] == unix.IPPROTO_UDP:
		lifetime = binary.BigEndian.Uint32(request[4:])
		inside := netip.AddrPortFrom(from.Addr(), binary.BigEndian.Uint16(request[40:]))
		outside := r.grant(binary.BigEndian.Uint16(request[42:]), inside, lifetime)
		address := netip.MustParseAddr(homeOutside).As16()
		content = binary.BigEndian.AppendUint16(slices.Clone(request[24:42]), outside)
		content = append(content, address[:]...)
	default:
		result = unsupportedOperation
	}
	reply := []byte{2, response | request[1], 0, result}
	reply = r.epoch(binary.BigEndian.AppendUint32(reply, lifetime))
	return append(append(reply, make([]byte, 12)...), content...)
}

// answerNATPMP serves the requests for the address outside and for a UDP port, RFC 6886 section 3.
func (r *homeRouter) answerNATPMP(request []byte, from netip.AddrPort) []byte {
	const externalAddress, mapUDP, mapBytes, response, badVersion = 0, 1, 12, 128, 1
	if len(request) < 2 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case request[0] != 0:
		return r.epoch([]byte{0, response | request[1], 0, badVersion})
	case request[1] == externalAddress:
		return append(r.epoch([]byte{0, response, 0, 0}), netip.MustParseAddr(homeOutside).AsSlice()...)
	case request[1] == mapUDP && len(request) == mapBytes:
		inside := netip.AddrPortFrom(from.Addr(), binary.BigEndian.Uint16(request[4:]))
		outside := r.grant(binary.BigEndian.Uint16(request[6:]), inside, binary.BigEndian.Uint32(request[8:]))
		reply := append(r.epoch([]byte{0, response | mapUDP, 0, 0}), request[4:6]...)
		return append(binary.BigEndian.AppendUint16(reply, outside), request[8:12]...)
	}
	return nil
}

// replug takes the cable of the LAN out and puts it in again, as a host sees a router that restarts.
func (r *homeRouter) replug(host *machine) {
	r.t.Helper()
	lan, ctx := r.machine.Interface("lan0"), within(r.t, patience)
	for _, plugged := range []bool{false, true} {
		change := lan.SetDown
		if plugged {
			change = lan.SetUp
		}
		if err := change(); err != nil {
			r.t.Fatal(err)
		}
		for {
			link, err := host.Handle().LinkByName("eth0")
			if err != nil {
				r.t.Fatal(err)
			}
			if plugged == (link.Attrs().RawFlags&unix.IFF_RUNNING != 0) {
				break
			}
			if pause(ctx, pollPeriod); ctx.Err() != nil {
				r.t.Fatalf("%s has not seen its cable replugged within %s", host.Name(), patience)
			}
		}
	}
}

// announce tells all hosts in the LAN that the router has started, again and again at growing intervals as
// both protocols want it, until a mapping has been asked for.
func (r *homeRouter) announce() {
	r.t.Helper()
	everyone := netip.MustParseAddrPort("224.0.0.1:5350")
	for ctx, wait := within(r.t, patience), 250*time.Millisecond; len(r.mappings()) == 0; wait *= 2 {
		r.mu.Lock()
		message := append(r.epoch([]byte{0, 128, 0, 0}), netip.MustParseAddr(homeOutside).AsSlice()...)
		if r.speaks == "PCP" {
			message = append(r.epoch([]byte{2, 0x80, 0, 0, 0, 0, 0, 0}), make([]byte, 12)...)
		}
		r.mu.Unlock()
		if _, err := r.socket.WriteToUDPAddrPort(message, everyone); err != nil {
			r.t.Fatalf("announce the router's start: %v", err)
		}
		r.awaitMapping(ctx, wait)
		if ctx.Err() != nil {
			r.t.Fatalf("nobody has asked for a mapping within %s of the router's restart", patience)
		}
	}
}

// awaitMapping waits for some time until something is mapped.
func (r *homeRouter) awaitMapping(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for len(r.mappings()) == 0 && ctx.Err() == nil {
		pause(ctx, pollPeriod)
	}
}
