package admit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestCreateNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	network := w.Network()
	v4, v6 := network.Prefixes[0], network.Prefixes[1]
	if !netip.MustParsePrefix("100.64.0.0/10").Overlaps(v4) || v4.Bits() != 16 {
		t.Errorf("IPv4 prefix %s", v4)
	}
	if !netip.MustParsePrefix("fd00::/8").Overlaps(v6) || v6.Bits() != 48 {
		t.Errorf("IPv6 prefix %s", v6)
	}
	nodes, err := w.Nodes()
	if err != nil || len(nodes) != 1 {
		t.Fatal(nodes, err)
	}
	gateway := nodes[0]
	want := []netip.Addr{v4.Addr().Next(), v6.Addr().Next()}
	if gateway.Role != store.RoleGateway || gateway.Name != "gw" || !slices.Equal(gateway.Addresses, want) {
		t.Errorf("gateway %+v", gateway)
	}
	if network.Name != "home" || network.Gateway != gateway.ID || network.CAKey.Reveal() != nil {
		t.Errorf("network %+v", network)
	}
	member := w.join(newKey(t), "laptop")
	if want := []netip.Addr{want[0].Next(), want[1].Next()}; !slices.Equal(member.Addresses, want) {
		t.Errorf("member's addresses %s", member.Addresses)
	}
	_, err = CreateNetwork(w.store, w.config(), NetworkParams{Gateway: w.gateway.Public()})
	wantError(t, "second network", err, ErrNetworkExists)
	w.restart()
	if again := w.Network(); again.ID != network.ID || !slices.Equal(again.Prefixes, network.Prefixes) {
		t.Errorf("network after a restart %+v", again)
	}
	empty := openStore(t, t.TempDir())
	_, err = Open(empty, w.config())
	wantError(t, "no network", err, ErrNoNetwork)
	if err := empty.Close(); err != nil {
		t.Error(err)
	}
}

func TestPrefixChoiceAvoids(t *testing.T) {
	t.Parallel()
	// All but 100.101.0.0/16, which is taken by halves, and 100.99.0.0/16.
	var avoid []netip.Prefix
	for second := 64; second < 128; second++ {
		if second != 99 && second != 100 {
			avoid = append(avoid, netip.MustParsePrefix(fmt.Sprintf("100.%d.128.0/24", second)))
		}
	}
	// Default routes in disguise stand in nobody's way.
	avoid = append(avoid, prefixes("0.0.0.0/0", "0.0.0.0/1", "64.0.0.0/2", "::/0", "8000::/1", "fc00::/6")...)
	for range 20 {
		chosen, err := choosePrefixes(NetworkParams{Avoid: avoid}, rand.Reader)
		if err != nil || chosen[0] != netip.MustParsePrefix("100.99.0.0/16") {
			t.Fatalf("%v, %v", chosen, err)
		}
	}
	_, err := choosePrefixes(NetworkParams{Avoid: append(avoid, prefixes("100.99.1.2/32")...)}, rand.Reader)
	wantError(t, "IPv4 full", err, ErrNoFreePrefix)
	_, err = choosePrefixes(NetworkParams{Avoid: prefixes("fc00::/7")}, rand.Reader)
	wantError(t, "IPv6 full", err, ErrNoFreePrefix)
	_, err = choosePrefixes(NetworkParams{}, strings.NewReader("short"))
	if err == nil {
		t.Error("a prefix without randomness")
	}
	// The first random prefix is in the way, the second is taken.
	random := strings.NewReader("12345678" + "aaaaa" + "bbbbb")
	chosen, err := choosePrefixes(NetworkParams{Avoid: prefixes("fd61:6161:6161:7::/64")}, random)
	if err != nil || chosen[1] != netip.MustParsePrefix("fd62:6262:6262::/48") {
		t.Errorf("%v, %v", chosen, err)
	}
}

func TestGivenPrefixes(t *testing.T) {
	t.Parallel()
	cases := []struct {
		given, avoid string
		want         error
	}{
		{"10.7.0.0/24", "", nil},
		{"fd00:1::/64", "", nil},
		{"10.7.0.0/30,fd00:1::/126", "", nil},
		{"fd00:1::/48,10.7.0.0/16", "0.0.0.0/0,10.8.0.0/16", nil},
		{"10.7.0.0/24,10.8.0.0/24", "", ErrPrefix},
		{"10.7.0.0/24,fd00:1::/64,fd00:2::/64", "", ErrPrefix},
		{"10.7.0.1/24", "", ErrPrefix},
		{"10.7.0.0/31", "", ErrPrefix},
		{"10.7.0.0/32", "", ErrPrefix},
		{"fd00::/127", "", ErrPrefix},
		{"0.0.0.0/0", "", ErrPrefix},
		{"127.0.0.0/16", "", ErrPrefix},
		{"169.254.0.0/16", "", ErrPrefix},
		{"224.0.0.0/8", "", ErrPrefix},
		{"fe80::/64", "", ErrPrefix},
		{"ff05::/64", "", ErrPrefix},
		{"::ffff:10.0.0.0/120", "", ErrPrefix},
		{"10.7.0.0/24", "10.0.0.0/8", ErrPrefixConflict},
		{"10.7.0.0/24", "10.7.0.77/32", ErrPrefixConflict},
		{"10.7.0.0/24,fd00:1::/64", "fd00:1::/60", ErrPrefixConflict},
	}
	for _, c := range cases {
		params := NetworkParams{Prefixes: prefixes(strings.Split(c.given, ",")...)}
		if c.avoid != "" {
			params.Avoid = prefixes(strings.Split(c.avoid, ",")...)
		}
		chosen, err := choosePrefixes(params, rand.Reader)
		if !errors.Is(err, c.want) || err == nil && !slices.Equal(chosen, params.Prefixes) {
			t.Errorf("%s beside %s: %v, %v", c.given, c.avoid, chosen, err)
		}
	}
	if _, err := choosePrefixes(NetworkParams{Prefixes: make([]netip.Prefix, 1)}, rand.Reader); !errors.Is(err,
		ErrPrefix) {
		t.Errorf("zero prefix: %v", err)
	}
}

func TestAddressArithmetic(t *testing.T) {
	t.Parallel()
	cases := []struct {
		prefix string
		count  uint64
		last   string
	}{
		{"10.0.0.0/30", 2, "10.0.0.2"},
		{"10.0.0.0/24", 254, "10.0.0.254"},
		{"100.70.0.0/16", 65534, "100.70.255.254"},
		{"100.0.0.0/8", 1<<24 - 2, "100.255.255.254"},
		{"fd00::/126", 3, "fd00::3"},
		{"fd00::/112", 65535, "fd00::ffff"},
		{"fd00:1:2::/48", 1<<63 - 1, "fd00:1:2:0:7fff:ffff:ffff:ffff"},
		{"fd00:1:2:3::/64", 1<<63 - 1, "fd00:1:2:3:7fff:ffff:ffff:ffff"},
	}
	for _, c := range cases {
		prefix := netip.MustParsePrefix(c.prefix)
		if got := capacity(prefix); got != c.count {
			t.Errorf("%s holds %d", prefix, got)
		}
		if first := addressAt(prefix, 0); first != prefix.Addr().Next() {
			t.Errorf("first of %s is %s", prefix, first)
		}
		if last := addressAt(prefix, c.count-1); last.String() != c.last {
			t.Errorf("last of %s is %s", prefix, last)
		}
	}
}

func TestPoolExhaustionAndReuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "10.7.0.0/29", "fd07::/64") // a gateway and five members
	for i := range 5 {
		w.join(newKey(t), fmt.Sprint("n", i))
	}
	late := newKey(t)
	proof := w.invite(InviteOptions{Uses: 1})
	_, err := w.Redeem(request(t, late, "late", proof), proof)
	wantError(t, "sixth member", err, ErrPoolExhausted)
	if !strings.Contains(err.Error(), "10.7.0.0/29") {
		t.Errorf("%v does not name the prefix", err)
	}
	for _, name := range []string{"n3", "n1"} {
		if _, err := w.Revoke(name); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(time.Minute)
	}
	// The failed attempt has used nothing up; n3 was revoked first.
	admission, err := w.Redeem(request(t, late, "late", proof), proof)
	if err != nil || admission.Addresses[0].String() != "10.7.0.5" {
		t.Fatalf("%v, %v", admission.Addresses, err)
	}
	back, err := w.Unrevoke("n3")
	if err != nil || back.Addresses[0].String() != "10.7.0.3" || back.Addresses[1].String() != "fd07::5" {
		t.Errorf("n3 is back with %v, %v", back.Addresses, err)
	}
	_, err = w.Unrevoke("n1")
	wantError(t, "n1 without an address left", err, ErrPoolExhausted)
	if n1, err := w.Node("n1"); err != nil || !n1.IsRevoked() || len(n1.Addresses) != 1 {
		t.Errorf("n1 is %+v, %v", n1, err)
	}
}

func TestFreshAddressesGoFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "10.7.0.0/24")
	w.join(newKey(t), "a")
	if _, err := w.Revoke("a"); err != nil {
		t.Fatal(err)
	}
	if b := w.join(newKey(t), "b"); b.Addresses[0].String() != "10.7.0.3" {
		t.Errorf("b has %s", b.Addresses)
	}
}

func TestSanitizeName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"laptop":                        "laptop",
		"My Laptop":                     "my-laptop",
		"--x--":                         "x",
		"a..b__c":                       "a-b-c",
		"":                              "node",
		"\x1b[31mred\x07":               "31mred",
		"日本":                            "node",
		"café":                          "caf",
		"a\x00b\nc":                     "a-b-c",
		"gw.example.net":                "gw-example-net",
		"-":                             "node",
		"UPPER9":                        "upper9",
		strings.Repeat("x", 100):        strings.Repeat("x", 63),
		strings.Repeat("x", 62) + "--y": strings.Repeat("x", 62),
		"../../etc/passwd":              "etc-passwd",
		"<script>":                      "script",
	} {
		if got := SanitizeName(name, "node"); got != want {
			t.Errorf("%q becomes %q, not %q", name, got, want)
		}
	}
}

func FuzzSanitizeName(f *testing.F) {
	f.Add("laptop")
	f.Add("\x1b[2J---a---")
	f.Fuzz(func(t *testing.T, name string) {
		clean := SanitizeName(name, "node")
		if len(clean) == 0 || len(clean) > maxName || SanitizeName(clean, "") != clean {
			t.Fatalf("%q becomes %q", name, clean)
		}
		if strings.Trim(clean, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Trim(clean, "-") != clean {
			t.Fatalf("%q becomes %q", name, clean)
		}
	})
}

func TestNamesBecomeUnique(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := strings.Repeat("x", 70)
	for _, want := range []string{"laptop", "laptop-2", "laptop-3"} {
		if a := w.join(newKey(t), "Laptop"); a.Name != want {
			t.Errorf("%q instead of %q", a.Name, want)
		}
	}
	for _, want := range []string{long[:63], long[:61] + "-2"} {
		if a := w.join(newKey(t), long); a.Name != want {
			t.Errorf("%q instead of %q", a.Name, want)
		}
	}
	if _, err := w.Revoke("laptop"); err != nil {
		t.Fatal(err)
	}
	if a := w.join(newKey(t), "laptop"); a.Name != "laptop-4" {
		t.Errorf("a revoked node's name was given to %q", a.Name)
	}
	// A node that calls itself by another's id does not stand in for it.
	victim := newKey(t)
	w.join(victim, "victim")
	w.join(newKey(t), victim.ID().String())
	if node, err := w.Node(victim.ID().String()); err != nil || node.ID != victim.ID() {
		t.Errorf("%s, %v", node.Name, err)
	}
}
