package bench

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseVs(t *testing.T) {
	if path, err := ParseVs("wireguard-go=/opt/a=b"); err != nil || path != "/opt/a=b" {
		t.Error(path, err)
	}
	if path, err := ParseVs("wireguard-go=here"); err != nil || !strings.HasSuffix(path, "/here") || path[0] != '/' {
		t.Error(path, err)
	}
	for _, text := range []string{"", "wireguard-go", "wireguard-go=", "nebula=/bin/x", "/usr/bin/wireguard-go"} {
		if path, err := ParseVs(text); err == nil || !strings.Contains(err.Error(), "wireguard-go=PATH") {
			t.Errorf("%q: got %q, %v", text, path, err)
		}
	}
}

func TestUAPI(t *testing.T) {
	c := peerConfig{
		privateKey: []byte{0x01, 0xab}, peerPublicKey: []byte{0xff, 0x00}, listenPort: 51820,
		endpoint: netip.MustParseAddrPort("[2001:db8::1]:51820"),
		allowed:  []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::/64")},
	}
	want := "set=1\nprivate_key=01ab\nlisten_port=51820\npublic_key=ff00\nendpoint=[2001:db8::1]:51820\n" +
		"allowed_ip=10.0.0.1/32\nallowed_ip=fd00::/64\n\n"
	if got := c.uapi(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.endpoint = netip.AddrPort{}
	if got := c.uapi(); strings.Contains(got, "endpoint") {
		t.Errorf("the end that waits has an endpoint: %q", got)
	}
}
