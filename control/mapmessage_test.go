package control

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestMapMessageRoundTrip(t *testing.T) {
	want := mapMessage{
		Network: "home", Node: "laptop", Gateway: "router", Addresses: []string{"192.0.2.1:443"},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16"), netip.MustParsePrefix("fd00::/64")},
		Granted:  []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")},
	}
	b, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeMapMessage(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMapMessageRefuses(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON":        "x",
		"too long":        `{"network":"` + strings.Repeat("x", maxMapMessageBytes) + `"}`,
		"host bits":       `{"prefixes":["10.0.0.1/8"]}`,
		"mapped":          `{"granted":["::ffff:10.0.0.0/104"]}`,
		"not a prefix":    `{"prefixes":["10.0.0.0"]}`,
		"empty prefix":    `{"prefixes":[""]}`,
		"too many things": `{"addresses":["` + strings.Repeat(`","`, maxMapEntries+1) + `"]}`,
	} {
		if m, err := decodeMapMessage([]byte(body)); err == nil {
			t.Errorf("%s: accepted as %+v", name, m)
		}
	}
	if m, err := decodeMapMessage([]byte(`{"network":"home","news":1}`)); err != nil || m.Network != "home" {
		t.Errorf("fields of a newer version: %+v, %v", m, err)
	}
}

func FuzzMapMessage(f *testing.F) {
	f.Add([]byte(`{"network":"n","prefixes":["10.0.0.0/8"],"granted":["fd00::/64"],"addresses":["a:1"]}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMapMessage(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			return // a message that only just fits may be longer in our spelling
		}
		if got, err := decodeMapMessage(again); err != nil || len(got.Prefixes) != len(m.Prefixes) {
			t.Fatalf("%q becomes %q: %v", b, again, err)
		}
	})
}
