package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// fakeResolver answers from a table.
type fakeResolver map[string][]string

func (r fakeResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	texts, ok := r[host]
	if !ok {
		return nil, errors.New("no such host")
	}
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out, nil
}

func TestResolve(t *testing.T) {
	r := fakeResolver{"vpn.example": {"192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1"}}
	got, err := resolve(t.Context(), r, []string{"192.0.2.1:443", "vpn.example:443", "[2001:db8::9]:4433", "gone.example:1"})
	if err != nil {
		t.Fatal(err)
	}
	want := "[192.0.2.1:443 192.0.2.2:443 [2001:db8::1]:443 [2001:db8::9]:4433]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestResolveNamesWhatIsWrong(t *testing.T) {
	for _, bad := range []string{"no-port", "host:0", "host:70000", "gone.example:443"} {
		if got, err := resolve(t.Context(), fakeResolver{}, []string{bad}); err == nil {
			t.Errorf("%s: got %v", bad, got)
		}
	}
}

func TestResolveIsBounded(t *testing.T) {
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("192.0.2.%d:443", i))
	}
	got, err := resolve(t.Context(), fakeResolver{}, many)
	if err != nil || len(got) != maxEndpoints || !slices.IsSortedFunc(got, netip.AddrPort.Compare) {
		t.Errorf("got %d addresses, %v", len(got), err)
	}
}
