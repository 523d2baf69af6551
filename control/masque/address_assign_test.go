package masque

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func assigned(id uint64, prefix string) AssignedAddress {
	return AssignedAddress{RequestID: id, Prefix: netip.MustParsePrefix(prefix)}
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 9484 section 4.7.1 gives the wire format; the bytes are written out by hand.
func TestRFC9484Section4_7_1Format(t *testing.T) {
	body := mustHex(t, "01"+"04"+"c000020b"+"20"+ // request 1, 192.0.2.11/32
		"4100"+"06"+"20010db8000000000000000000000000"+"40"+ // request 256, 2001:db8::/64
		"00"+"04"+"00000000"+"20") // rejection
	want := AddressAssignment{Addresses: []AssignedAddress{
		assigned(1, "192.0.2.11/32"), assigned(256, "2001:db8::/64"), assigned(0, "0.0.0.0/32"),
	}}
	got, malformed, err := ParseAddressAssign(body)
	if err != nil || malformed != 0 || !reflect.DeepEqual(got, want) {
		t.Fatalf("parsed %v, %d malformed, %v", got, malformed, err)
	}
	back, err := AppendAddressAssign(nil, want)
	if err != nil || !bytes.Equal(back, body) {
		t.Fatalf("encoded %x, %v", back, err)
	}
	if p := got.Prefixes(); !slices.Equal(p, prefixes("192.0.2.11/32", "2001:db8::/64")) {
		t.Errorf("prefixes %v", p)
	}
}

// RFC 9484 section 4.7.1: an empty capsule withdraws every address.
func TestRFC9484Section4_7_1Empty(t *testing.T) {
	a, malformed, err := ParseAddressAssign(nil)
	if err != nil || malformed != 0 || len(a.Addresses) != 0 {
		t.Fatalf("parsed %v, %d malformed, %v", a, malformed, err)
	}
}

// A malformed assignment of one family does not cost the other.
func TestAssignOneFamilyMalformed(t *testing.T) {
	const addr6 = "20010db8000000000000000000000007"
	good4 := "0004c000020b20"
	good6 := "0006" + addr6 + "80"
	for name, c := range map[string]struct {
		body string
		want []netip.Prefix
	}{
		"ipv6 prefix too long":   {good4 + "0006" + addr6 + "81", prefixes("192.0.2.11/32")},
		"ipv6 host bits":         {"0006" + addr6 + "40" + good4, prefixes("192.0.2.11/32")},
		"ipv6 is a mapped ipv4":  {"000600000000000000000000ffffc000020b80" + good4, prefixes("192.0.2.11/32")},
		"ipv4 prefix too long":   {"0004c000020b80" + good6, prefixes("2001:db8::7/128")},
		"ipv4 host bits":         {good6 + "0004c000020b18", prefixes("2001:db8::7/128")},
		"one of two of a family": {"0004c000020b18" + good4, prefixes("192.0.2.11/32")},
	} {
		a, malformed, err := ParseAddressAssign(mustHex(t, c.body))
		if err != nil || malformed != 1 || !slices.Equal(a.Prefixes(), c.want) {
			t.Errorf("%s: parsed %v, %d malformed, %v", name, a, malformed, err)
		}
	}
}

// RFC 9484 section 4.7.1: malformed fields make the capsule malformed.
func TestRFC9484Section4_7_1Malformed(t *testing.T) {
	for name, body := range map[string]string{
		"ip version 5":         "0005c000020b20",
		"ip version 0":         "0000c000020b20",
		"no version":           "00",
		"truncated request id": "40",
		"truncated address":    "0004c00002",
		"no prefix length":     "0004c000020b",
		"truncated ipv6":       "000620010db800000000000000000000000720"[:30],
		"bytes after":          "0004c000020b2000",
		"only malformed":       "0004c000020b21",
	} {
		if a, _, err := ParseAddressAssign(mustHex(t, body)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: parsed %v, %v", name, a, err)
		}
	}
}

func TestAssignLimit(t *testing.T) {
	entry := mustHex(t, "0004c000020b20")
	if _, _, err := ParseAddressAssign(bytes.Repeat(entry, MaxAddressEntries)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, _, err := ParseAddressAssign(bytes.Repeat(entry, MaxAddressEntries+1)); !errors.Is(err, errExcessive) {
		t.Errorf("beyond the limit: %v", err)
	}
	many := AddressAssignment{Addresses: make([]AssignedAddress, MaxAddressEntries+1)}
	if _, err := AppendAddressAssign(nil, many); !errors.Is(err, errExcessive) {
		t.Errorf("encoded beyond the limit: %v", err)
	}
}

func TestAppendAddressAssignRefuses(t *testing.T) {
	for name, p := range map[string]netip.Prefix{
		"zero":      {},
		"host bits": netip.MustParsePrefix("192.0.2.1/24"),
		"mapped":    netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.1"), 128),
		"too long":  netip.PrefixFrom(netip.MustParseAddr("192.0.2.1"), 33),
	} {
		a := AddressAssignment{Addresses: []AssignedAddress{{Prefix: p}}}
		if b, err := AppendAddressAssign(nil, a); err == nil {
			t.Errorf("%s: encoded %x", name, b)
		}
	}
}

// RFC 9484 section 4.7.2: each Requested Address is answered under its own ID,
// with an all-zero address of the maximum length if it was not assigned.
func TestRFC9484Section4_7_2EveryRequestAnswered(t *testing.T) {
	request := func(p ...string) AddressRequest {
		var r AddressRequest
		for i, p := range prefixes(p...) {
			r.Requests = append(r.Requests, RequestedAddress{RequestID: uint64(i) + 7, Prefix: p})
		}
		return r
	}
	owned := prefixes("100.64.0.2/32", "100.64.0.3/32", "fd00::2/128")
	for name, c := range map[string]struct {
		owned   []netip.Prefix
		request AddressRequest
		want    []AssignedAddress
	}{
		"unprompted": {owned, AddressRequest{}, []AssignedAddress{
			assigned(0, "100.64.0.2/32"), assigned(0, "100.64.0.3/32"), assigned(0, "fd00::2/128"),
		}},
		"one of each family": {owned, request("0.0.0.0/32", "::/128"), []AssignedAddress{
			assigned(7, "100.64.0.2/32"), assigned(0, "100.64.0.3/32"), assigned(8, "fd00::2/128"),
		}},
		"a particular one": {owned, request("0.0.0.0/32", "100.64.0.2/32"), []AssignedAddress{
			assigned(8, "100.64.0.2/32"), assigned(7, "100.64.0.3/32"), assigned(0, "fd00::2/128"),
		}},
		"more than there are": {owned, request("::/128", "::/64", "2001:db8::1/128"), []AssignedAddress{
			assigned(0, "100.64.0.2/32"), assigned(0, "100.64.0.3/32"), assigned(7, "fd00::2/128"),
			assigned(8, "::/128"), assigned(9, "::/128"),
		}},
		"no ipv6": {owned[:1], request("0.0.0.0/32", "::/128"), []AssignedAddress{
			assigned(7, "100.64.0.2/32"), assigned(8, "::/128"),
		}},
		"nothing": {nil, request("0.0.0.0/0"), []AssignedAddress{assigned(7, "0.0.0.0/32")}},
	} {
		got := Assign(c.owned, c.request)
		if !slices.Equal(got.Addresses, c.want) {
			t.Errorf("%s: %v, want %v", name, got.Addresses, c.want)
		}
		if _, err := AppendAddressAssign(nil, got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseAddressAssign(f *testing.F) {
	f.Add([]byte{})
	f.Add(mustHex(f, "0104c000020b20410006"+"20010db8000000000000000000000000"+"40"))
	f.Add(mustHex(f, "0004c000020b210004c000020b20"))
	f.Add(bytes.Repeat(mustHex(f, "0004c000020b20"), MaxAddressEntries+1))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, malformed, err := ParseAddressAssign(body)
		if err != nil {
			return
		}
		if n := len(a.Addresses) + malformed; n > MaxAddressEntries {
			t.Fatalf("%d entries", n)
		}
		b, err := AppendAddressAssign(nil, a)
		if err != nil {
			t.Fatal(err)
		}
		again, malformed, err := ParseAddressAssign(b)
		if err != nil || malformed != 0 || !slices.Equal(again.Addresses, a.Addresses) {
			t.Fatalf("%v became %v, %d malformed, %v", a, again, malformed, err)
		}
	})
}
