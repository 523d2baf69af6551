package portmap

import (
	"bytes"
	"net/netip"
	"testing"
	"unicode/utf8"
)

func FuzzPCPResponse(f *testing.F) {
	f.Add(unhex(f, pcpMapAnswer))
	f.Add(unhex(f, "00 81 0001 00000000"))
	f.Add(unhex(f, "02 80 00 00 00000000 00000007 000000000000000000000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parsePCPResponse(b)
		if !ok || !r.hasMap {
			return
		}
		// A request made of what was read carries the same content at the same place.
		again := appendPCPMapRequest(nil, r.mapping, r.lifetime, netip.IPv4Unspecified())
		echo := bytes.Clone(again)
		echo[1] |= pcpResponseBit
		back, ok := parsePCPResponse(echo)
		if !ok || back.mapping != r.mapping || back.lifetime != r.lifetime {
			t.Fatalf("%+v became %+v", r, back)
		}
	})
}

func FuzzNATPMPResponse(f *testing.F) {
	f.Add(unhex(f, "00 80 0000 00000064 cb007105"))
	f.Add(unhex(f, "00 81 0000 00000064 01bb20fb 00001c20"))
	f.Add(unhex(f, "00 81 0002 00000064"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseNATPMPResponse(b)
		if ok && r.result == natpmpSuccess && r.opcode == natpmpOpAddress && !r.external.Is4() {
			t.Fatalf("an answer without its content: %+v", r)
		}
	})
}

func FuzzAnnouncement(f *testing.F) {
	f.Add(unhex(f, "02 80 00 00 00000000 00000007 000000000000000000000000"))
	f.Add(unhex(f, "00 80 0000 00000007 cb007105"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parseAnnouncement(b); ok && a.protocol != PCP && a.protocol != NATPMP {
			t.Fatalf("announcement of nobody: %+v", a)
		}
	})
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(description))
	f.Add([]byte("<a><b/></a>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, services, err := parseDescription(b)
		if err == nil && len(services) > 3*maxServices {
			t.Fatalf("%d services", len(services))
		}
		for _, s := range services {
			if serviceRank(s.kind) < 0 || s.control == "" || len(s.control) > 4*maxFieldBytes {
				t.Fatalf("service %+v", s)
			}
		}
	})
}

func FuzzSOAP(f *testing.F) {
	f.Add([]byte(`<E><Fault><errorCode>718</errorCode></Fault></E>`))
	f.Add([]byte(`<E><NewReservedPort>1</NewReservedPort></E>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fields, fault, err := parseSOAP(b)
		if err == nil && (fault == nil) == (fields == nil) {
			t.Fatalf("fields %v, fault %v", fields, fault)
		}
		if len(fields) > maxFields || fault != nil && !utf8.ValidString(fault.text) {
			t.Fatalf("fields %v, fault %v", fields, fault)
		}
	})
}

func FuzzSSDP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nST: :InternetGatewayDevice:\r\nLOCATION: http://192.168.1.1/\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, ok := parseSSDPResponse(b, netip.MustParseAddr("192.168.1.1"))
		if !ok {
			return
		}
		host, err := netip.ParseAddr(u.Hostname())
		if err != nil || host.Unmap() != netip.MustParseAddr("192.168.1.1") || u.Scheme != "http" {
			t.Fatalf("accepted %s", u)
		}
	})
}
