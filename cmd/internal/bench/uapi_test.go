package bench

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseVs(t *testing.T) {
	if r, err := ParseVs("wireguard-go=/opt/a=b"); err != nil || r != (Rival{Path: "/opt/a=b"}) {
		t.Error(r, err)
	}
	if r, err := ParseVs("wireguard-go=here"); err != nil || !strings.HasSuffix(r.Path, "/here") || r.Path[0] != '/' {
		t.Error(r, err)
	}
	if r, err := ParseVs(""); err != nil || r != (Rival{}) {
		t.Error(r, err)
	}
	if r, err := ParseVs("self"); err != nil || r != (Rival{Self: true}) {
		t.Error(r, err)
	}
	for _, text := range []string{"wireguard-go", "wireguard-go=", "nebula=/bin/x", "/usr/bin/wireguard-go", "self=1"} {
		if r, err := ParseVs(text); err == nil || !strings.Contains(err.Error(), "wireguard-go=PATH") {
			t.Errorf("%q: got %+v, %v", text, r, err)
		}
	}
}

func TestUAPI(t *testing.T) {
	far := peerConfig{
		publicKey: []byte{0xff, 0x00}, endpoint: netip.MustParseAddrPort("[2001:db8::1]:51820"),
		allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::/64")},
	}
	waiting := peerConfig{publicKey: []byte{0x02}, allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}}
	c := deviceConfig{privateKey: []byte{0x01, 0xab}, listenPort: 51820, peers: []peerConfig{far, waiting}}
	want := "set=1\nprivate_key=01ab\nlisten_port=51820\n" +
		"public_key=ff00\nendpoint=[2001:db8::1]:51820\nallowed_ip=10.0.0.1/32\nallowed_ip=fd00::/64\n" +
		"public_key=02\nallowed_ip=10.0.0.2/32\n\n"
	if got := c.uapi(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
