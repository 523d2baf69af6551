package portmap

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// maxURLBytes bounds the address of a description or of a control point.
const maxURLBytes = 512

// ssdpSearch renders one M-SEARCH of the UPnP Device Architecture 1.1, section 1.3.2. host is the address it
// is sent to, target what is searched for.
func ssdpSearch(host netip.AddrPort, target string) []byte {
	const form = "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n"
	return fmt.Appendf(nil, form, host, target)
}

// ssdpTargets lists what to search for: routers of both versions, and the services for routers that answer
// only for those.
func ssdpTargets() [4]string {
	return [...]string{
		"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
		"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
		"urn:schemas-upnp-org:service:WANIPConnection:1",
		"urn:schemas-upnp-org:service:WANPPPConnection:1",
	}
}

// parseSSDPResponse reads the answer to a search and gives the address of the description; false when it is
// no answer or the address is not acceptable for a datagram that came from source ([acceptURL]).
func parseSSDPResponse(b []byte, source netip.Addr) (*url.URL, bool) {
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, false
	}
	// The body of a datagram is what is left of it; nothing is held open.
	if response.Body.Close() != nil || response.StatusCode != http.StatusOK {
		return nil, false
	}
	st := response.Header.Get("ST")
	if !strings.Contains(st, ":InternetGatewayDevice:") && !strings.Contains(st, ":WANIPConnection:") &&
		!strings.Contains(st, ":WANPPPConnection:") {
		return nil, false
	}
	return acceptURL(nil, response.Header.Get("Location"), source)
}

// acceptURL reads an address given by a router, relative to base if that is not nil. It must be plain HTTP on
// the literal address host, so that whoever answers can point at nobody but itself.
func acceptURL(base *url.URL, text string, host netip.Addr) (*url.URL, bool) {
	if text == "" || len(text) > maxURLBytes {
		return nil, false
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, false
	}
	if base != nil {
		u = base.ResolveReference(u)
	}
	if u.Scheme != "http" || u.User != nil || u.Opaque != "" {
		return nil, false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil || addr.Unmap() != host.Unmap() {
		return nil, false
	}
	u.Fragment = ""
	return u, true
}
