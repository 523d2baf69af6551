package portmap

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const description = `<?xml version="1.0" encoding="ISO-8859-1"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major></specVersion>
<URLBase>http://192.168.1.1:5000/base/</URLBase>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<friendlyName>Gr` + "\xfc" + `n &amp; Co</friendlyName>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/l3</controlURL></service></serviceList>
<deviceList><device><deviceList><device><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>
<controlURL>/ppp</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL> ip1 </controlURL><SCPDURL>/scpd</SCPDURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType></service>
</serviceList></device></deviceList></device></deviceList></device></root>`

func TestParseDescription(t *testing.T) {
	base, services, err := parseDescription([]byte(description))
	if err != nil || base != "http://192.168.1.1:5000/base/" {
		t.Fatalf("base %q, %v", base, err)
	}
	if !slices.Equal(services, []igdService{{serviceIP1, "ip1"}, {servicePPP1, "/ppp"}}) {
		t.Errorf("services %+v", services)
	}
	for name, text := range map[string]string{
		"cut":               description[:len(description)-20],
		"not matching":      "<a><b></a></b>",
		"too deep":          strings.Repeat("<a>", 30) + strings.Repeat("</a>", 30),
		"foreign character": `<?xml version="1.0" encoding="EBCDIC"?><a/>`,
	} {
		if _, _, err := parseDescription([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	one := "<service><serviceType>" + serviceIP1 + "</serviceType><controlURL>/x</controlURL></service>"
	many := "<root>" + strings.Repeat(one, 999) + "</root>"
	if _, services, err := parseDescription([]byte(many)); err != nil || len(services) != maxServices {
		t.Errorf("%d services, %v", len(services), err)
	}
}

func TestParseSOAP(t *testing.T) {
	fields, fault, err := parseSOAP([]byte(`<s:Envelope><s:Body><u:GetExternalIPAddressResponse>` +
		`<NewExternalIPAddress> 203.0.113.5 </NewExternalIPAddress>` +
		`</u:GetExternalIPAddressResponse></s:Body></s:Envelope>`))
	if err != nil || fault != nil || fields["NewExternalIPAddress"] != "203.0.113.5" {
		t.Errorf("%v %v %v", fields, fault, err)
	}
	_, fault, err = parseSOAP([]byte("<E><Fault><detail><UPnPError><errorCode>718</errorCode>" +
		"<errorDescription>Conflict\x1b[31m</errorDescription></UPnPError></detail></Fault></E>"))
	if err == nil {
		t.Errorf("a control character, which XML forbids, was accepted: %v", fault)
	}
	_, fault, err = parseSOAP([]byte(`<E><Fault><detail><UPnPError><errorCode>718</errorCode>` +
		`<errorDescription>Con&#x85;flict</errorDescription></UPnPError></detail></Fault></E>`))
	if err != nil || fault == nil || *fault != (soapFault{718, "Con flict"}) {
		t.Errorf("%v %v", fault, err)
	}
	if _, _, err := parseSOAP([]byte(`<E><Fault/></E>`)); err == nil {
		t.Error("a fault without a code was accepted")
	}
	long := "<a>" + strings.Repeat("x", 10*maxFieldBytes) + "</a>"
	if fields, _, err := parseSOAP([]byte(long)); err != nil || len(fields["a"]) != maxFieldBytes {
		t.Errorf("%d bytes, %v", len(fields["a"]), err)
	}
}

func TestSOAPRequest(t *testing.T) {
	got, err := soapRequest(serviceIP1, "Do", []soapArgument{{"A", ""}, {"B", "<&>"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `<u:Do xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"><A></A><B>&lt;&amp;&gt;</B></u:Do>`
	if !strings.Contains(string(got), want) {
		t.Errorf("got %s", got)
	}
}

func TestAcceptURL(t *testing.T) {
	host := netip.MustParseAddr("192.168.1.1")
	base, err := url.Parse("http://192.168.1.1:5000/dir/desc.xml")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"http://192.168.1.1/x":             "http://192.168.1.1/x",
		"http://192.168.1.1:80/x#frag":     "http://192.168.1.1:80/x",
		"http://[::ffff:192.168.1.1]:80/x": "http://[::ffff:192.168.1.1]:80/x",
		"/ctl":                             "http://192.168.1.1:5000/ctl",
		"ctl?a=b":                          "http://192.168.1.1:5000/dir/ctl?a=b",
	} {
		if u, ok := acceptURL(base, text, host); !ok || u.String() != want {
			t.Errorf("%s: %v, %v", text, u, ok)
		}
	}
	for _, text := range []string{
		"", "http://192.168.1.2/x", "https://192.168.1.1/x", "//evil.example/x", "http://router.local/x",
		"http://user@192.168.1.1/x", "file:///etc/passwd", "http://192.168.1.1:x/", "mailto:a@b",
		"http://0xc0a80101/",
		"http://192.168.1.1/" + strings.Repeat("a", maxURLBytes),
	} {
		if u, ok := acceptURL(base, text, host); ok {
			t.Errorf("%s accepted as %v", text, u)
		}
	}
	if _, ok := acceptURL(nil, "/relative", host); ok {
		t.Error("a relative address without a base was accepted")
	}
}

func TestParseSSDPResponse(t *testing.T) {
	source := netip.MustParseAddr("192.168.1.1")
	good := "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n" +
		"st: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n" +
		"LOCATION: http://192.168.1.1:5000/desc.xml\r\nEXT:\r\n\r\n"
	if u, ok := parseSSDPResponse([]byte(good), source); !ok || u.Path != "/desc.xml" {
		t.Errorf("%v, %v", u, ok)
	}
	for name, text := range map[string]string{
		"empty":         "",
		"garbage":       "\x00\xff\x00",
		"cut":           good[:20],
		"status":        strings.Replace(good, "200", "404", 1),
		"other device":  strings.Replace(good, "InternetGatewayDevice", "MediaServer", 1),
		"other host":    strings.Replace(good, "192.168.1.1", "192.168.1.9", 1),
		"no location":   strings.Replace(good, "LOCATION", "X", 1),
		"search itself": string(ssdpSearch(netip.MustParseAddrPort("192.168.1.1:1900"), "x")),
	} {
		if u, ok := parseSSDPResponse([]byte(text), source); ok {
			t.Errorf("%s: accepted as %v", name, u)
		}
	}
}
