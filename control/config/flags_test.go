package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aetherd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func setFlags(t *testing.T, pairs ...string) Flags {
	t.Helper()
	var f Flags
	for i := 0; i < len(pairs); i += 2 {
		if err := f.Set(pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestFlagsOverride(t *testing.T) {
	path := writeFile(t, "[node]\nname = \"file\"\nmtu = 1300\n[gateway]\nnetwork = [\"100.80.0.0/16\"]\n")
	flags := setFlags(t, "name", "flag", "network", "10.7.0.0/16, fd00:1::/48", "mtu", "1290",
		"advertise-routes", "10.1.0.0/24", "advertise-routes", "10.2.0.0/24", "state", "relative")
	c, err := Resolve(path, true, flags)
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "flag" || c.Node.MTU != 1290 || len(c.Gateway.Network) != 2 ||
		len(c.Routes.Advertise) != 2 {
		t.Errorf("flags do not win: %+v", c)
	}
	if !filepath.IsAbs(c.Node.State) || filepath.Base(c.Node.State) != "relative" {
		t.Errorf("state %q is not made absolute", c.Node.State)
	}
	if s, ok := c.Source("node.mtu"); !ok || s.Flag != "--mtu" {
		t.Errorf("source %+v", s)
	}
	if !flags.IsSet("mtu") || flags.IsSet("tun") {
		t.Error("IsSet")
	}
}

// TestFlagsReset shows that an empty list flag takes back what the file says.
func TestFlagsReset(t *testing.T) {
	path := writeFile(t, "[gateway]\nnetwork = [\"100.80.0.0/16\"]\n")
	c, err := Resolve(path, true, setFlags(t, "network", ""))
	if err != nil || len(c.Gateway.Network) != 0 {
		t.Errorf("%v, %v", c.Gateway.Network, err)
	}
}

func TestFlagProblems(t *testing.T) {
	path := writeFile(t, "[gateway]\nnetwork = [\"192.168.0.0/16\"]\nport_mapping = \"on\"\n")
	_, err := Resolve(path, true, setFlags(t, "mtu", "big", "network", "10.0.0.1/8", "advertise-routes",
		"10.9.0.0/16", "listen", "localhost:443", "name", "a b", "log-level", "inof"))
	if err == nil {
		t.Fatal("accepted")
	}
	got := strings.ReplaceAll(err.Error(), path, "FILE") + "\n"
	compareGolden(t, "testdata/flags.golden", got)
	// A problem that file and flags together repeat is listed once.
	if n := strings.Count(got, "port_mapping"); n != 1 {
		t.Errorf("%d reports for port_mapping", n)
	}
}

func TestFlagValue(t *testing.T) {
	var f Flags
	for _, k := range Keys() {
		if k.Flag == "" {
			continue
		}
		v := f.Value(k.Flag)
		if v == nil || v.String() != "" || v.Type() != k.Type {
			t.Errorf("--%s: %v", k.Flag, v)
		}
	}
	v := f.Value("listen")
	for _, text := range []string{":443,:444", ":445"} {
		if err := v.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if v.String() != ":443,:444,:445" {
		t.Errorf("got %s", v)
	}
	if f.Value("nonsense") != nil || f.Value("") != nil || f.Set("nonsense", "") == nil {
		t.Error("an unknown flag is taken")
	}
	if (&FlagValue{}).String() != "" {
		t.Error("the zero value, which flag packages print, is not empty")
	}
}

// TestOverlayKeepsConfig shows that laying flags over a configuration leaves the original alone.
func TestOverlayKeepsConfig(t *testing.T) {
	base, err := Parse("f", []byte("[routes]\nadvertise = [\"10.0.0.0/24\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	before := base.clone()
	flags := setFlags(t, "advertise-routes", "10.5.0.0/24", "name", "x")
	if _, problems := flags.overlay(base); problems != nil {
		t.Fatal(problems)
	}
	if _, touched := base.Source("node.name"); touched || !base.Equal(before) {
		t.Error("the overlay changed what it was laid over")
	}
}

// The daemon in the background is started with what Args gives back.
func TestArgsMeanTheSameAgain(t *testing.T) {
	var first Flags
	for _, f := range [][2]string{
		{"listen", ":443"},
		{"listen", "192.0.2.1:4433, [2001:db8::1]:4433"},
		{"network", ""},
		{"name", "aether://x"},
		{"name", "-"},
		{"mtu", "1300"},
	} {
		if err := first.Set(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	args := first.Args()
	want := []string{"--listen=:443,192.0.2.1:4433,[2001:db8::1]:4433", "--mtu=1300", "--name=-", "--network="}
	if !slices.Equal(args, want) {
		t.Errorf("got %q", args)
	}
	var again Flags
	for _, a := range args {
		name, text, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		if err := again.Set(name, text); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(first, again) {
		t.Errorf("%v became %v", first, again)
	}
	if got := (Flags{}).Args(); len(got) != 0 {
		t.Errorf("no flags: %q", got)
	}
}
