package masque

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func requested(id uint64, prefix string) RequestedAddress {
	return RequestedAddress{RequestID: id, Prefix: netip.MustParsePrefix(prefix)}
}

// RFC 9484 section 4.7.2 gives the wire format; the bytes are written out by hand.
func TestRFC9484Section4_7_2Format(t *testing.T) {
	body := mustHex(t, "01"+"04"+"00000000"+"20"+"02"+"06"+"00000000000000000000000000000000"+"40")
	want := []RequestedAddress{requested(1, "0.0.0.0/32"), requested(2, "::/64")}
	got, malformed, err := ParseAddressRequest(body)
	if err != nil || malformed != 0 || !slices.Equal(got.Requests, want) {
		t.Fatalf("parsed %v, %d malformed, %v", got, malformed, err)
	}
	back, err := AppendAddressRequest(nil, AddressRequest{Requests: want})
	if err != nil || !bytes.Equal(back, body) {
		t.Fatalf("encoded %x, %v", back, err)
	}
}

// RFC 9484 section 4.7.2: a request without an entry, and malformed fields, abort the
// stream; a request ID is never 0.
func TestRFC9484Section4_7_2Malformed(t *testing.T) {
	for name, body := range map[string]string{
		"no entry":          "",
		"request id 0":      "000400000000" + "20",
		"ip version 7":      "010700000000" + "20",
		"truncated":         "010400000000",
		"truncated address": "01040000",
	} {
		if r, _, err := ParseAddressRequest(mustHex(t, body)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: parsed %v, %v", name, r, err)
		}
	}
	for name, r := range map[string][]RequestedAddress{
		"no entry":     nil,
		"request id 0": {requested(0, "0.0.0.0/32")},
		"host bits":    {requested(1, "10.0.0.1/8")},
	} {
		if b, err := AppendAddressRequest(nil, AddressRequest{Requests: r}); err == nil {
			t.Errorf("%s: encoded %x", name, b)
		}
	}
}

// A preference that cannot be read still has to be answered under its ID.
func TestRequestWithMalformedPreference(t *testing.T) {
	body := mustHex(t, "01040a00000118"+"0204"+"0a000000"+"21"+"0306"+"20010db8000000000000000000000000"+"40")
	got, malformed, err := ParseAddressRequest(body)
	want := []RequestedAddress{
		requested(1, "0.0.0.0/32"), requested(2, "0.0.0.0/32"), requested(3, "2001:db8::/64"),
	}
	if err != nil || malformed != 2 || !slices.Equal(got.Requests, want) {
		t.Fatalf("parsed %v, %d malformed, %v", got, malformed, err)
	}
}

func TestRequestLimit(t *testing.T) {
	entry := mustHex(t, "0104c000020b20")
	if _, _, err := ParseAddressRequest(bytes.Repeat(entry, MaxAddressEntries)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	_, _, err := ParseAddressRequest(bytes.Repeat(entry, MaxAddressEntries+1))
	if !errors.Is(err, errExcessive) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func FuzzParseAddressRequest(f *testing.F) {
	f.Add([]byte{})
	f.Add(mustHex(f, "0104000000002002060000000000000000000000000000000040"))
	f.Add(mustHex(f, "01040a00000118"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, malformed, err := ParseAddressRequest(body)
		if err != nil {
			return
		}
		if n := len(r.Requests); n == 0 || n > MaxAddressEntries || malformed > n {
			t.Fatalf("%d entries, %d malformed", n, malformed)
		}
		b, err := AppendAddressRequest(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		again, malformed, err := ParseAddressRequest(b)
		if err != nil || malformed != 0 || !slices.Equal(again.Requests, r.Requests) {
			t.Fatalf("%v became %v, %d malformed, %v", r, again, malformed, err)
		}
		// Whatever was asked can be answered.
		if _, err := AppendAddressAssign(nil, Assign(nil, r)); err != nil {
			t.Fatal(err)
		}
	})
}
