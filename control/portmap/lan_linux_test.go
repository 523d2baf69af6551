package portmap

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// insideVariable marks the process that runs in its own network namespace.
const insideVariable = "AETHER_PORTMAP_TEST_INSIDE"

const (
	lanRouter = "192.168.77.1"
	lanHost   = "192.168.77.2"
)

// inNamespace runs the test again in a process with a network namespace of its own and reports whether this
// is that process. All threads of it are inside, unlike those of a process that enters one.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		return true
	}
	attributes := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		attributes.Cloneflags |= syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), insideVariable+"=1")
	command.SysProcAttr = attributes
	out, err := command.CombinedOutput()
	if command.Process == nil && os.Geteuid() != 0 {
		t.Skipf("neither root nor allowed to make namespaces without: %v", err)
	}
	t.Logf("inside:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// makeLAN gives the namespace one Ethernet link with the addresses of a router and of a host.
func makeLAN(t *testing.T) *net.Interface {
	t.Helper()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "lan0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "lan1"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lo", "lan0", "lan1"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "lan0" {
			for _, address := range []string{lanRouter, lanHost} {
				parsed, err := netlink.ParseAddr(address + "/24")
				if err != nil {
					t.Fatal(err)
				}
				if err := netlink.AddrAdd(link, parsed); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	}
	lan, err := net.InterfaceByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	return lan
}

// TestSearchByMulticast finds a router that hears the group alone, through the kernel's multicast and with no
// route but that of the LAN.
func TestSearchByMulticast(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	lan := makeLAN(t)
	r := newFakeRouterAt(t, net.ParseIP(lanRouter), 0)
	r.upnp = true
	r.serveAll()
	address := &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: ssdpPort}
	group, err := net.ListenMulticastUDP("udp4", lan, address)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, from, err := group.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if reply := r.answerSearch(buf[:n], from); reply != nil {
				_, _ = r.ssdp.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
	defer func() { _ = group.Close(); <-ended }()
	s := &searcher{
		gateway: netip.MustParseAddr(lanRouter), local: netip.MustParseAddr(lanHost),
		targets: []netip.AddrPort{netip.MustParseAddrPort("239.255.255.250:1900")},
	}
	found, err := s.search(t.Context())
	if err != nil || len(found) != 1 || found[0].description.Hostname() != lanRouter {
		t.Errorf("found %v, %v", found, err)
	}
}

// TestRouterRestart runs the public client on the well-known ports: the router forgets the mapping, tells all
// hosts, and gets it again.
func TestRouterRestart(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	makeLAN(t)
	r := newFakeRouterAt(t, net.ParseIP(lanRouter), routerPort)
	r.pcp = true
	mapped := make(chan struct{}, 8)
	r.before = func(_ *fakeRouter, b []byte, _ netip.AddrPort) {
		if len(b) == 60 {
			mapped <- struct{}{}
		}
	}
	r.serveAll()
	events := make(chan Event, 8)
	c, err := New(Config{
		Gateway: netip.MustParseAddr(lanRouter), LocalAddr: netip.MustParseAddr(lanHost), InternalPort: 443,
		OnEvent: func(e Event) { events <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	wantMapping(t, <-events, "203.0.113.5:443", PCP)
	<-mapped

	r.mu.Lock()
	clear(r.mappings)
	r.mu.Unlock()
	everyone := netip.MustParseAddrPort("224.0.0.1:5350")
	announce := unhex(t, "02 80 00 00 00000000 00000000 000000000000000000000000")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for renewed := false; !renewed; {
		// More than once, as nothing tells when the listener is open; only the first one shows lost state.
		if _, err := r.udp.WriteToUDPAddrPort(announce, everyone); err != nil {
			t.Fatal(err)
		}
		select {
		case <-mapped:
			renewed = true
		case <-tick.C:
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	log := slices.DeleteFunc(r.events(), func(s string) bool { return !strings.Contains(s, "lifetime 1800") })
	if len(log) != 2 {
		t.Errorf("router saw %q", r.events())
	}
}
