package portmap

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// unhex reads hexadecimal with blanks for readability.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPCPRequest compares with the layouts of RFC 6887 figures 2 and 9, written out by hand.
func TestPCPRequest(t *testing.T) {
	local := netip.MustParseAddr("192.168.1.23")
	got := appendPCPMapRequest(nil, pcpMap{
		nonce: [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, protocol: 17, internalPort: 443, externalPort: 8443,
		external: netip.IPv4Unspecified(),
	}, 30*time.Minute, local)
	want := unhex(t, "02 01 0000 00000708 00000000000000000000ffff c0a80117"+
		"0102030405060708090a0b0c 11 000000 01bb 20fb 00000000000000000000ffff 00000000")
	if !bytes.Equal(got, want) {
		t.Errorf("MAP request\n%x, want\n%x", got, want)
	}
	got = appendPCPRequest(nil, pcpOpAnnounce, 0, local)
	want = unhex(t, "02 00 0000 00000000 00000000000000000000ffff c0a80117")
	if !bytes.Equal(got, want) {
		t.Errorf("ANNOUNCE request\n%x, want\n%x", got, want)
	}
}

const pcpMapAnswer = "02 81 00 00 00000e10 00000064 000000000000000000000000" +
	"0102030405060708090a0b0c 11 000000 01bb 20fb 00000000000000000000ffff cb007105"

func TestPCPResponse(t *testing.T) {
	r, ok := parsePCPResponse(unhex(t, pcpMapAnswer))
	want := pcpResponse{
		version: 2, opcode: 1, lifetime: time.Hour, epoch: 100, hasMap: true,
		mapping: pcpMap{
			nonce: [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, protocol: 17,
			internalPort: 443, externalPort: 8443, external: netip.MustParseAddr("203.0.113.5"),
		},
	}
	if !ok || r != want {
		t.Errorf("got %+v, %v", r, ok)
	}
	for name, text := range map[string]string{
		"empty": "", "short": "028100", "request": "02 01 0000" + pcpMapAnswer[12:],
		"cut header": pcpMapAnswer[:40],
		"odd length": pcpMapAnswer + "00", "too long": pcpMapAnswer + strings.Repeat("00000000", 300),
		"future version without refusal": "03 81 00 00",
	} {
		if r, ok := parsePCPResponse(unhex(t, text)); ok {
			t.Errorf("%s: taken as %+v", name, r)
		}
	}
	if r, ok := parsePCPResponse(unhex(t, pcpMapAnswer)[:24]); !ok || r.hasMap {
		t.Errorf("an answer without content: %+v, %v", r, ok)
	}
	if r, ok := parsePCPResponse(unhex(t, "00 81 0001 00000000")); !ok || r.version != 0 || r.result != 1 {
		t.Errorf("the refusal of a NAT-PMP router: %+v, %v", r, ok)
	}
}

// TestNATPMPWire compares with the layouts of RFC 6886 sections 3.2 and 3.3.
func TestNATPMPWire(t *testing.T) {
	if got := appendNATPMPAddressRequest(nil); !bytes.Equal(got, []byte{0, 0}) {
		t.Errorf("address request %x", got)
	}
	got := appendNATPMPMapRequest(nil, 443, 8443, 2*time.Hour)
	if want := unhex(t, "00 01 0000 01bb 20fb 00001c20"); !bytes.Equal(got, want) {
		t.Errorf("map request %x, want %x", got, want)
	}
	for text, want := range map[string]natpmpResponse{
		"00 80 0000 00000064 cb007105": {epoch: 100, external: netip.MustParseAddr("203.0.113.5")},
		"00 81 0000 00000064 01bb20fb 00001c20": {
			opcode: 1, epoch: 100, internalPort: 443, externalPort: 8443, lifetime: 2 * time.Hour,
		},
		"00 81 0002 00000064": {opcode: 1, result: 2, epoch: 100},
	} {
		if r, ok := parseNATPMPResponse(unhex(t, text)); !ok || r != want {
			t.Errorf("%s: %+v, %v", text, r, ok)
		}
	}
	for _, text := range []string{
		"", "00", "00 80 0000 00000064", "00 81 0000 00000064 01bb20fb", "00 01 0000 00000064",
		"02 80 0000 00000064",
		"00 82 0000 00000064 01bb20fb 00001c20",
	} {
		if r, ok := parseNATPMPResponse(unhex(t, text)); ok {
			t.Errorf("%s: taken as %+v", text, r)
		}
	}
}

func TestPCPEpoch(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		name          string
		first, second uint32
		passed        time.Duration
		lost          bool
	}{
		{"steady", 1000, 1100, 100 * time.Second, false},
		{"restart", 1000, 3, 100 * time.Second, true},
		{"one second back is reordering", 1000, 999, 0, false},
		{"two seconds back", 1000, 998, 0, true},
		{"clock drift within a sixteenth", 1000, 1946, 1000 * time.Second, false},
		{"server far behind", 1000, 1900, 1000 * time.Second, true},
		{"server far ahead", 1000, 2200, 1000 * time.Second, true},
		{"restart that looks like a pause", 0, 50, 1000 * time.Second, true},
	} {
		var e pcpEpoch
		if e.observe(c.first, start) {
			t.Errorf("%s: the first answer counts as lost state", c.name)
		}
		if got := e.observe(c.second, start.Add(c.passed)); got != c.lost {
			t.Errorf("%s: lost = %v", c.name, got)
		}
	}
}

func TestNATPMPEpoch(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		name          string
		first, second uint32
		passed        time.Duration
		lost          bool
	}{
		{"steady", 1000, 1100, 100 * time.Second, false},
		{"slow server", 1000, 1000 + 875, 1000 * time.Second, false},
		{"two seconds of grace", 1000, 1000 + 873, 1000 * time.Second, false},
		{"slower than an eighth", 1000, 1000 + 872, 1000 * time.Second, true},
		{"fast server", 1000, 5000, 100 * time.Second, false},
		{"restart", 1000, 3, 100 * time.Second, true},
	} {
		var e natpmpEpoch
		if e.observe(c.first, start) {
			t.Errorf("%s: the first answer counts as lost state", c.name)
		}
		if got := e.observe(c.second, start.Add(c.passed)); got != c.lost {
			t.Errorf("%s: lost = %v", c.name, got)
		}
	}
}

func TestParseAnnouncement(t *testing.T) {
	for text, want := range map[string]announcement{
		"02 80 00 00 00000000 00000007 000000000000000000000000": {protocol: PCP, epoch: 7},
		"00 80 0000 00000007 cb007105":                           {protocol: NATPMP, epoch: 7},
	} {
		if a, ok := parseAnnouncement(unhex(t, text)); !ok || a != want {
			t.Errorf("%s: %+v, %v", text, a, ok)
		}
	}
	for _, text := range []string{
		"", pcpMapAnswer, "00 81 0002 00000064", "02 80 00 01 00000000 00000007 000000000000000000000000",
	} {
		if _, ok := parseAnnouncement(unhex(t, text)); ok {
			t.Errorf("%s: taken", text)
		}
	}
}

func TestIsPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "203.0.113.5": true, "192.168.1.1": false, "10.0.0.1": false, "172.31.0.1": false,
		"172.32.0.1": true, "100.64.0.1": false, "100.127.255.255": false, "100.128.0.1": true,
		"169.254.1.1": false,
		"127.0.0.1":   false, "0.0.0.0": false, "0.1.2.3": false, "255.255.255.255": false, "240.0.0.1": false,
		"198.18.0.1": false, "198.19.255.1": false, "198.20.0.1": true, "192.0.0.8": false, "224.0.0.1": false,
		"::1": false,
	} {
		if got := isPublic(netip.MustParseAddr(text)); got != want {
			t.Errorf("isPublic(%s) = %v", text, got)
		}
	}
}
