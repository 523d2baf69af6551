package portmap

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeRouter plays a home router on the loopback. It is written from the protocol texts and shares no code
// with the client.
type fakeRouter struct {
	t      *testing.T
	udp    *net.UDPConn // PCP and NAT-PMP
	ssdp   *net.UDPConn
	web    net.Listener
	server *http.Server
	start  time.Time
	once   sync.Once

	mu sync.Mutex
	// What the router can do; tests set these before serveAll.
	pcp, natpmp, upnp bool
	version           int // of IGD
	external          [4]byte
	lifetime          uint32 // granted at most, seconds
	pcpResult         byte
	natpmpResult      uint16
	onlyPermanent     bool
	// overwrites: the mapping of another host is replaced without a word.
	overwrites bool
	// before runs before every answer; location overrides the address of the description.
	before             func(r *fakeRouter, request []byte, from netip.AddrPort)
	location           string
	descriptionHandler http.HandlerFunc
	// What the router has.
	mappings map[uint16]fakeMapping // by external port
	log      []string
}

type fakeMapping struct {
	client   string
	port     uint16
	lifetime uint32
	nonce    string
}

func newFakeRouter(t *testing.T) *fakeRouter {
	t.Helper()
	return newFakeRouterAt(t, net.IPv4(127, 0, 0, 1), 0)
}

// newFakeRouterAt makes a router at an address; port is that of PCP and NAT-PMP, 0 for any.
func newFakeRouterAt(t *testing.T, ip net.IP, port int) *fakeRouter {
	t.Helper()
	r := &fakeRouter{
		t: t, start: time.Now(), external: [4]byte{203, 0, 113, 5}, lifetime: 1 << 31, version: 1,
		mappings: make(map[uint16]fakeMapping),
	}
	var err error
	if r.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: ip, Port: port}); err != nil {
		t.Fatal(err)
	}
	if r.ssdp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: ip}); err != nil {
		t.Fatal(err)
	}
	if r.web, err = net.Listen("tcp4", net.JoinHostPort(ip.String(), "0")); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /desc.xml", r.serveDescription)
	mux.HandleFunc("POST /ctl", r.serveControl)
	r.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	t.Cleanup(func() { _, _, _ = r.udp.Close(), r.ssdp.Close(), r.web.Close() })
	return r
}

// serveAll starts the router with the abilities set so far; calls after the first do nothing.
func (r *fakeRouter) serveAll() {
	r.once.Do(func() {
		var wg sync.WaitGroup
		wg.Go(func() { r.serve(r.udp, r.answer) })
		wg.Go(func() { r.serve(r.ssdp, r.answerSearch) })
		wg.Go(func() { _ = r.server.Serve(r.web) })
		r.t.Cleanup(func() {
			_, _, _ = r.udp.Close(), r.ssdp.Close(), r.server.Close()
			wg.Wait()
		})
	})
}

func (r *fakeRouter) serve(conn *net.UDPConn, answer func([]byte, netip.AddrPort) []byte) {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if reply := answer(buf[:n], from); reply != nil {
			_, _ = conn.WriteToUDPAddrPort(reply, from)
		}
	}
}

// client starts the router and makes a Client that speaks to it.
func (r *fakeRouter) client(cfg Config) *Client {
	r.t.Helper()
	r.serveAll()
	cfg.Gateway, cfg.LocalAddr = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")
	cfg.InternalPort = 443
	c, err := newClient(cfg, places{
		router: localPort(r.udp), ssdp: localPort(r.ssdp), announcements: 0, withoutMulticast: true,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func localPort(c net.PacketConn) uint16 {
	return netip.MustParseAddrPort(c.LocalAddr().String()).Port()
}

func (r *fakeRouter) note(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *fakeRouter) events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.log...)
}

func (r *fakeRouter) mapping(port uint16) (fakeMapping, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.mappings[port]
	return m, ok
}

func (r *fakeRouter) epoch() uint32 { return uint32(time.Since(r.start)/time.Second) + 1000 }

// answer serves port 5351, where the first byte tells the protocols apart.
func (r *fakeRouter) answer(b []byte, from netip.AddrPort) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.before != nil {
		r.before(r, b, from)
	}
	switch {
	case len(b) >= 24 && b[0] == 2 && r.pcp:
		return r.answerPCP(b)
	case len(b) >= 2 && b[0] == 2 && r.natpmp:
		// RFC 6886 section 3.5: an unknown version is answered in version 0 with result 1.
		return binary.BigEndian.AppendUint32([]byte{0, b[1] | 0x80, 0, 1}, r.epoch())
	case len(b) >= 2 && b[0] == 0 && r.natpmp:
		return r.answerNATPMP(b, from)
	}
	return nil
}

func (r *fakeRouter) answerPCP(b []byte) []byte {
	reply := []byte{2, b[1] | 0x80, 0, r.pcpResult}
	if b[1] == 0 {
		r.note("PCP ANNOUNCE")
		reply[3] = 0
		reply = append(reply, 0, 0, 0, 0)
		return append(binary.BigEndian.AppendUint32(reply, r.epoch()), make([]byte, 12)...)
	}
	lifetime := min(binary.BigEndian.Uint32(b[4:]), r.lifetime)
	nonce := string(b[24:36])
	internal, external := binary.BigEndian.Uint16(b[40:]), binary.BigEndian.Uint16(b[42:])
	client := netip.AddrFrom16([16]byte(b[8:24])).Unmap().String()
	r.note("PCP MAP protocol %d internal %d external %d lifetime %d", b[36], internal, external, lifetime)
	if r.pcpResult == 0 {
		if lifetime == 0 {
			for port, m := range r.mappings {
				if m.nonce == nonce {
					delete(r.mappings, port)
				}
			}
		} else {
			r.mappings[external] = fakeMapping{client, internal, lifetime, nonce}
		}
	}
	reply = binary.BigEndian.AppendUint32(reply, lifetime)
	reply = append(binary.BigEndian.AppendUint32(reply, r.epoch()), make([]byte, 12)...)
	reply = append(reply, b[24:44]...)
	address := netip.AddrFrom4(r.external).As16()
	return append(reply, address[:]...)
}

func (r *fakeRouter) answerNATPMP(b []byte, from netip.AddrPort) []byte {
	reply := binary.BigEndian.AppendUint16([]byte{0, b[1] + 128}, r.natpmpResult)
	reply = binary.BigEndian.AppendUint32(reply, r.epoch())
	if b[1] == 0 {
		r.note("NAT-PMP address")
		return append(reply, r.external[:]...)
	}
	internal, external := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	lifetime := min(binary.BigEndian.Uint32(b[8:]), r.lifetime)
	r.note("NAT-PMP map internal %d external %d lifetime %d", internal, external, lifetime)
	if r.natpmpResult != 0 {
		return reply
	}
	if lifetime == 0 {
		for port, m := range r.mappings {
			if m.port == internal && m.client == from.Addr().String() {
				delete(r.mappings, port)
			}
		}
	} else {
		r.mappings[external] = fakeMapping{client: from.Addr().String(), port: internal, lifetime: lifetime}
	}
	reply = binary.BigEndian.AppendUint16(reply, internal)
	reply = binary.BigEndian.AppendUint16(reply, external)
	return binary.BigEndian.AppendUint32(reply, lifetime)
}

func (r *fakeRouter) answerSearch(b []byte, from netip.AddrPort) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.before != nil {
		r.before(r, b, from)
	}
	target := "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	if !r.upnp || !strings.HasPrefix(string(b), "M-SEARCH * HTTP/1.1\r\n") ||
		!strings.Contains(string(b), target) {
		return nil
	}
	location := r.location
	if location == "" {
		location = "http://" + r.web.Addr().String() + "/desc.xml"
	}
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nST: %s\r\nUSN: uuid:1\r\nLOCATION: %s\r\n\r\n", target, location)
}

func (r *fakeRouter) serveDescription(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.descriptionHandler != nil {
		r.descriptionHandler(w, q)
		return
	}
	fmt.Fprintf(w, `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:%d</serviceType><controlURL>/ctl</controlURL>
</service></serviceList></device></root>`, r.version)
}

var (
	actionPattern   = regexp.MustCompile(`^"urn:schemas-upnp-org:service:WANIPConnection:[12]#(\w+)"$`)
	argumentPattern = regexp.MustCompile(`<(New\w+)>([^<]*)</New`)
)

// serveControl plays WANIPConnection as its specification describes the actions.
func (r *fakeRouter) serveControl(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	match := actionPattern.FindStringSubmatch(q.Header.Get("SOAPAction"))
	if err != nil || match == nil {
		http.Error(w, "bad call", http.StatusBadRequest)
		return
	}
	arguments := make(map[string]string)
	for _, a := range argumentPattern.FindAllStringSubmatch(string(body), -1) {
		arguments[a[1]] = a[2]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fields, code := r.act(match[1], arguments)
	if code != 0 {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `<s:Envelope xmlns:s="x"><s:Body><s:Fault><faultcode>s:Client</faultcode>`+
			`<faultstring>UPnPError</faultstring><detail><UPnPError><errorCode>%d</errorCode>`+
			`<errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
		return
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="x"><s:Body>`+
		`<u:%[1]sResponse xmlns:u="y">%[2]s</u:%[1]sResponse></s:Body></s:Envelope>`, match[1], fields)
}

func (r *fakeRouter) act(action string, a map[string]string) (fields string, code int) {
	port64, _ := strconv.ParseUint(a["NewExternalPort"], 10, 16)
	port := uint16(port64)
	held, taken := r.mappings[port]
	switch action {
	case "GetExternalIPAddress":
		return "<NewExternalIPAddress>" + netip.AddrFrom4(r.external).String() + "</NewExternalIPAddress>", 0
	case "GetSpecificPortMappingEntry":
		if !taken {
			return "", 714
		}
		return fmt.Sprintf("<NewInternalPort>%d</NewInternalPort><NewInternalClient>%s</NewInternalClient>",
			held.port, held.client), 0
	case "AddPortMapping", "AddAnyPortMapping":
		r.note("UPnP %s %s %s -> %s:%s lease %s", action, a["NewProtocol"], a["NewExternalPort"],
			a["NewInternalClient"], a["NewInternalPort"], a["NewLeaseDuration"])
		if r.onlyPermanent && a["NewLeaseDuration"] != "0" {
			return "", 725
		}
		if taken && !r.overwrites && held.client != a["NewInternalClient"] {
			if action == "AddPortMapping" {
				return "", 718
			}
			port = 50001
		}
		internal, _ := strconv.ParseUint(a["NewInternalPort"], 10, 16)
		r.mappings[port] = fakeMapping{client: a["NewInternalClient"], port: uint16(internal)}
		return fmt.Sprintf("<NewReservedPort>%d</NewReservedPort>", port), 0
	case "DeletePortMapping":
		r.note("UPnP DeletePortMapping %d", port)
		if !taken {
			return "", 714
		}
		delete(r.mappings, port)
		return "", 0
	}
	return "", 401
}
