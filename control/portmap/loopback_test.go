package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// run starts the client and gives its events and a function that ends it and gives Run's error.
func run(t *testing.T, r *fakeRouter, cfg Config) (<-chan Event, func() error) {
	t.Helper()
	events := make(chan Event, 16)
	cfg.OnEvent = func(e Event) { events <- e }
	c := r.client(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	ended := false
	stop := func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		err := <-done
		if e := c.Current(); e.Mapping.External.IsValid() || e.Err != nil {
			t.Errorf("after the end the state is %+v", e)
		}
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return events, stop
}

func wantMapping(t *testing.T, e Event, external string, p Protocol) {
	t.Helper()
	if !e.Usable() || e.Mapping.External.String() != external || e.Mapping.Protocol != p {
		t.Fatalf("got %+v, want %s through %s", e, external, p)
	}
}

func TestPCPMapping(t *testing.T) {
	r := newFakeRouter(t)
	r.pcp, r.natpmp, r.upnp = true, true, true
	r.lifetime = 600
	var controlled atomic.Int32
	nonce := [12]byte{9, 8, 7}
	before := time.Now()
	events, stop := run(t, r, Config{Nonce: nonce, Control: func(_, _ string, c syscall.RawConn) error {
		controlled.Add(1)
		return c.Control(func(uintptr) {})
	}})
	e := <-events
	wantMapping(t, e, "203.0.113.5:443", PCP)
	const lifetime = 600 * time.Second
	if at := e.Mapping.Expires; at.Before(before.Add(lifetime)) || at.After(time.Now().Add(lifetime)) {
		t.Errorf("expires in %s, the router granted %s", time.Until(at), lifetime)
	}
	m, ok := r.mapping(443)
	if !ok || m.client != "127.0.0.1" || m.port != 443 || m.nonce != string(nonce[:]) {
		t.Errorf("router has %+v, %v", m, ok)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.mapping(443); ok {
		t.Error("the mapping is left behind")
	}
	log := r.events()
	want := []string{
		"PCP ANNOUNCE", "PCP MAP protocol 17 internal 443 external 443 lifetime 600",
		"PCP MAP protocol 17 internal 443 external 0 lifetime 0",
	}
	log = slices.DeleteFunc(log, func(s string) bool { return !strings.HasPrefix(s, "PCP") })
	if !slices.Equal(log, want) {
		t.Errorf("router saw %q, want %q", log, want)
	}
	if controlled.Load() == 0 {
		t.Error("the sockets were not given to Control")
	}
}

func TestNATPMPMapping(t *testing.T) {
	r := newFakeRouter(t)
	r.natpmp = true
	events, stop := run(t, r, Config{})
	wantMapping(t, <-events, "203.0.113.5:443", NATPMP)
	if m, ok := r.mapping(443); !ok || m.lifetime != 1800 {
		t.Errorf("router has %+v, %v", m, ok)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.mapping(443); ok {
		t.Error("the mapping is left behind")
	}
	if log := r.events(); !slices.Contains(log, "NAT-PMP map internal 443 external 0 lifetime 0") {
		t.Errorf("router saw %q", log)
	}
}

func TestUPnPMapping(t *testing.T) {
	for _, version := range []int{1, 2} {
		r := newFakeRouter(t)
		r.upnp, r.version = true, version
		closePort(t, r)
		events, stop := run(t, r, Config{})
		wantMapping(t, <-events, "203.0.113.5:443", UPnP)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		want := []string{"UPnP AddPortMapping UDP 443 -> 127.0.0.1:443 lease 1800", "UPnP DeletePortMapping 443"}
		if log := r.events(); !slices.Equal(log, want) {
			t.Errorf("version %d: router saw %q", version, log)
		}
	}
}

// closePort makes the router answer PCP and NAT-PMP with ICMP, as one without them does.
func closePort(t *testing.T, r *fakeRouter) {
	t.Helper()
	port := r.udp.LocalAddr()
	if err := r.udp.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("nothing listens on %s", port)
}

func TestUPnPPermanentLease(t *testing.T) {
	r := newFakeRouter(t)
	r.upnp, r.onlyPermanent = true, true
	closePort(t, r)
	events, stop := run(t, r, Config{})
	e := <-events
	wantMapping(t, e, "203.0.113.5:443", UPnP)
	if !e.Mapping.Expires.IsZero() {
		t.Errorf("a permanent mapping expires %s", e.Mapping.Expires)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.mapping(443); ok {
		t.Error("the permanent mapping is left behind")
	}
}

// TestUPnPForeignMapping meets a port that another host holds, on a router that reports it and on one that
// would overwrite it.
func TestUPnPForeignMapping(t *testing.T) {
	for _, overwrites := range []bool{false, true} {
		t.Run(fmt.Sprintf("overwrites=%v", overwrites), func(t *testing.T) { testForeignMapping(t, overwrites) })
	}
}

func testForeignMapping(t *testing.T, overwrites bool) {
	t.Helper()
	r := newFakeRouter(t)
	r.upnp, r.overwrites = true, overwrites
	r.mappings[443] = fakeMapping{client: "192.168.1.77", port: 443}
	closePort(t, r)
	events, stop := run(t, r, Config{})
	e := <-events
	if !e.Usable() || e.Mapping.External.Port() == 443 || e.Mapping.External.Port() < 1024 {
		t.Fatalf("got %+v", e)
	}
	if m, ok := r.mapping(e.Mapping.External.Port()); !ok || m.port != 443 {
		t.Errorf("router has %+v, %v", m, ok)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if m, ok := r.mapping(443); !ok || m.client != "192.168.1.77" {
		t.Error("the mapping of another host was touched")
	}
	if _, ok := r.mapping(e.Mapping.External.Port()); ok {
		t.Error("the mapping is left behind")
	}
}

// TestUPnPAddAny covers version 2, where the router chooses a port when it reports a conflict itself.
func TestUPnPAddAny(t *testing.T) {
	r := newFakeRouter(t)
	r.mappings[443] = fakeMapping{client: "192.168.1.77", port: 443}
	r.version = 2
	p := r.client(Config{}).protocols[2].(*upnpClient)
	control, ok := acceptURL(nil, "http://"+r.web.Addr().String()+"/ctl", netip.MustParseAddr("127.0.0.1"))
	if !ok {
		t.Fatal("control URL refused")
	}
	p.service = &controlPoint{kind: serviceIP2, url: control}
	port, err := p.addMapping(t.Context(), 443, time.Minute)
	if err != nil || port != 50001 {
		t.Errorf("port %d, %v", port, err)
	}
	p.service.kind = serviceIP1
	if _, err := p.addMapping(t.Context(), 443, time.Minute); faultCode(err) != upnpConflict {
		t.Errorf("version 1 conflict gives %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	r := newFakeRouter(t)
	r.pcp, r.natpmp = true, true
	r.pcpResult, r.natpmpResult = 2, 2
	events, stop := run(t, r, Config{})
	e := <-events
	refused, ok := errors.AsType[*RefusedError](e.Err)
	if !ok || refused.Protocol != PCP || refused.Code != 2 ||
		!strings.Contains(e.Err.Error(), "forward UDP port 443") {
		t.Errorf("got %v", e.Err)
	}
	if err := stop(); err != nil {
		t.Errorf("a mapping that was never granted cannot fail to be removed: %v", err)
	}
}

// TestRefusedFallsBack shows that a refusal in one protocol does not keep the next from being asked.
func TestRefusedFallsBack(t *testing.T) {
	t.Parallel()
	r := newFakeRouter(t)
	r.pcp, r.natpmp, r.upnp, r.pcpResult, r.natpmpResult = true, true, true, 2, 2
	events, _ := run(t, r, Config{})
	wantMapping(t, <-events, "203.0.113.5:443", UPnP)
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	r := newFakeRouter(t)
	closePort(t, r)
	if err := r.ssdp.Close(); err != nil {
		t.Fatal(err)
	}
	events, stop := run(t, r, Config{})
	e := <-events
	none, ok := errors.AsType[*NoAnswerError](e.Err)
	if !ok || none.Port != 443 || len(none.Tried) != 3 || e.Usable() {
		t.Errorf("got %v", e.Err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestDoubleNAT(t *testing.T) {
	for external, carrier := range map[[4]byte]bool{{192, 168, 178, 2}: false, {100, 70, 1, 2}: true} {
		r := newFakeRouter(t)
		r.pcp, r.external = true, external
		events, stop := run(t, r, Config{})
		e := <-events
		double, ok := errors.AsType[*DoubleNATError](e.Err)
		if !ok || double.CarrierGrade != carrier || e.Usable() || !e.Mapping.External.IsValid() {
			t.Errorf("%v: got %+v", external, e)
		} else if double.Remedy() == "" || strings.Contains(double.Remedy(), "CGNAT") != carrier {
			t.Errorf("%v: remedy %q", external, double.Remedy())
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestHostileAnswers puts garbage, cut and foreign answers before the right one.
func TestHostileAnswers(t *testing.T) {
	r := newFakeRouter(t)
	r.pcp = true
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	r.before = func(r *fakeRouter, request []byte, from netip.AddrPort) {
		if len(request) != 60 {
			return
		}
		answer := r.answerPCP(request)
		forged := slices.Clone(answer)
		copy(forged[56:], []byte{198, 51, 100, 66})
		wrongNonce, wrongPort, wrongOpcode := slices.Clone(forged), slices.Clone(forged), slices.Clone(forged)
		wrongNonce[24] ^= 1
		wrongPort[41] ^= 1
		wrongOpcode[1] = 0x82
		for _, b := range [][]byte{
			{}, {0xff}, make([]byte, 1500), answer[:59], answer[:24], request, wrongNonce, wrongPort, wrongOpcode,
		} {
			_, _ = r.udp.WriteToUDPAddrPort(b, from)
		}
		_, _ = other.WriteToUDPAddrPort(forged, from) // all correct, but from another source
	}
	events, _ := run(t, r, Config{})
	wantMapping(t, <-events, "203.0.113.5:443", PCP)
}

// TestFlood shows that strays end an exchange instead of keeping it alive.
func TestFlood(t *testing.T) {
	r := newFakeRouter(t)
	r.before = func(r *fakeRouter, _ []byte, from netip.AddrPort) {
		for range 2 * maxStrayDatagrams {
			_, _ = r.udp.WriteToUDPAddrPort([]byte{0xff}, from)
		}
	}
	p := r.client(Config{}).protocols[0]
	if err := p.probe(t.Context()); !errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), "stray") {
		t.Errorf("got %v", err)
	}
}

// TestDescriptionSource covers answers that point elsewhere, redirect, or never end.
func TestDescriptionSource(t *testing.T) {
	asked := make(chan struct{}, 64)
	near := serveForeign(t, "127.0.0.1:0", asked)
	far := "127.0.0.2:9" // outside Linux the loopback has one address and nobody answers there
	if runtime.GOOS == "linux" {
		far = serveForeign(t, "127.0.0.2:0", asked)
	}
	for name, set := range map[string]func(*fakeRouter){
		"other host": func(r *fakeRouter) { r.location = "http://" + far + "/desc.xml" },
		"host name":  func(r *fakeRouter) { r.location = "http://localhost/desc.xml" },
		"redirect": func(r *fakeRouter) {
			r.descriptionHandler = func(w http.ResponseWriter, q *http.Request) {
				http.Redirect(w, q, "http://"+near+"/desc.xml", http.StatusFound)
			}
		},
		"endless": func(r *fakeRouter) {
			r.descriptionHandler = func(w http.ResponseWriter, _ *http.Request) {
				for range 2 * maxWebBytes / 1024 {
					if _, err := w.Write(make([]byte, 1024)); err != nil {
						return
					}
				}
			}
		},
		"endless header": func(r *fakeRouter) {
			r.descriptionHandler = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X", strings.Repeat("x", 2*maxWebHeaderBytes))
			}
		},
		"no router": func(r *fakeRouter) {
			r.descriptionHandler = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<root/>")) }
		},
		"garbage": func(r *fakeRouter) {
			r.descriptionHandler = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00<<")) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFakeRouter(t)
			r.upnp = true
			set(r)
			err := r.client(Config{}).protocols[2].probe(t.Context())
			if err == nil {
				t.Fatal("accepted")
			}
			if want := "more than 131072 bytes"; name == "endless" && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	t.Cleanup(func() {
		select {
		case <-asked:
			t.Error("a third host was asked")
		default:
		}
	})
}

// serveForeign runs a server that must never be asked and gives its address.
func serveForeign(t *testing.T, address string, asked chan<- struct{}) string {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Second,
		Handler:           http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }),
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return l.Addr().String()
}

// TestSlowRouter cancels while the router says nothing; Run must end at once.
func TestSlowRouter(t *testing.T) {
	r := newFakeRouter(t)
	asked := make(chan struct{}, 64)
	r.before = func(*fakeRouter, []byte, netip.AddrPort) {
		select {
		case asked <- struct{}{}:
		default:
		}
	}
	_, stop := run(t, r, Config{})
	<-asked
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestAnnouncementListener sends real datagrams from the router and from another address.
func TestAnnouncementListener(t *testing.T) {
	probe, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	port := localPort(probe)
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	router, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = router.Close() }()
	c, err := newClient(Config{
		Gateway: netip.MustParseAddr("127.0.0.1"), LocalAddr: netip.MustParseAddr("127.0.0.1"), InternalPort: 1,
	}, places{announcements: port})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	found, done := make(chan announcement, 1), make(chan error, 1)
	go func() { done <- c.listen(ctx, found) }()
	target := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	send := func(from *net.UDPConn, text string) {
		if _, err := from.WriteToUDPAddrPort(unhex(t, text), target); err != nil && !isRefused(err) {
			t.Fatal(err)
		}
	}
	const announce = "02 80 00 00 00000000 00000007 000000000000000000000000"
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		send(router, "ff")
		send(router, announce)
		select {
		case a := <-found:
			tick.Stop()
			if a.protocol != PCP || a.epoch != 7 || a.at.IsZero() {
				t.Errorf("got %+v", a)
			}
		case <-tick.C: // the socket is not open yet
			continue
		}
		break
	}
	if other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}); err == nil {
		drain(found)
		send(other, "00 80 0000 00000009 cb007105")
		send(router, "00 80 0000 0000000a cb007105")
		for a := range found {
			if a.protocol == NATPMP {
				if a.epoch != 10 {
					t.Errorf("an announcement of another host was taken: %+v", a)
				}
				break
			}
		}
		_ = other.Close()
	} else {
		t.Logf("no second loopback address: %v", err)
	}
	// Nobody reads now: the queue of one fills up and the rest is counted.
	for c.dropped.Load() == 0 {
		send(router, announce)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func drain(found <-chan announcement) {
	for {
		select {
		case <-found:
		default:
			return
		}
	}
}

func TestConfigErrors(t *testing.T) {
	good := Config{
		Gateway: netip.MustParseAddr("192.168.1.1"), LocalAddr: netip.MustParseAddr("192.168.1.2"),
		InternalPort: 443,
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no gateway":     func(c *Config) { c.Gateway = netip.Addr{} },
		"IPv6 gateway":   func(c *Config) { c.Gateway = netip.MustParseAddr("fe80::1") },
		"no local":       func(c *Config) { c.LocalAddr = netip.IPv4Unspecified() },
		"no port":        func(c *Config) { c.InternalPort = 0 },
		"short lifetime": func(c *Config) { c.Lifetime = time.Second },
		"long lifetime":  func(c *Config) { c.Lifetime = 48 * time.Hour },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	good.LocalAddr = netip.MustParseAddr("192.0.2.77")
	c, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	err = c.protocols[2].probe(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no interface has") {
		t.Errorf("an address of nobody: %v", err)
	}
}
