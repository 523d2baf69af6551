package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

func updateFlag() *bool { return flag.Bool("update", false, "rewrite the golden files in testdata") }

var update = updateFlag()

// skipWindows skips where the cases hold paths of the other systems.
func skipWindows(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the case names a state directory in the form of Unix")
	}
}

func TestGoodFiles(t *testing.T) {
	skipWindows(t)
	paths, err := filepath.Glob("testdata/good/*.toml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if _, err := Load(path); err != nil {
				t.Errorf("refused:\n%v", err)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	skipWindows(t)
	paths, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(filepath.Base(path), data)
			if err == nil {
				t.Fatal("accepted")
			}
			if !c.Equal(Default()) {
				t.Error("a refused file left its traces in the result")
			}
			compareGolden(t, strings.TrimSuffix(path, ".toml")+".golden", err.Error()+"\n")
		})
	}
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("problems differ from %s\n--- got\n%s--- want\n%s", path, got, want)
	}
}

func TestFullValues(t *testing.T) {
	skipWindows(t)
	c, err := Load("testdata/good/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Node: Node{Name: "gw-1", State: "/srv/aetherd", Tun: "aether7", MTU: 1400, Nice: -5},
		Gateway: Gateway{
			Listen: []ListenAddr{
				{netip.MustParseAddr("192.0.2.1"), 443}, {netip.MustParseAddr("2001:db8::1"), 443}, {Port: 8443},
			},
			Advertise: []HostPort{{"vpn.example.org", 443}, {"192.0.2.1", 443}, {"2001:db8::1", 443}},
			Network: []netip.Prefix{
				netip.MustParsePrefix("100.80.0.0/16"), netip.MustParsePrefix("fd12:3456:789a::/48"),
			},
			PortMapping: PortMappingOff,
		},
		Routes: Routes{Advertise: []netip.Prefix{
			netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("2001:db8:1::/64"),
		}},
		TLS: TLS{KeyExchange: PreferHybrid},
		Log: Log{Level: LevelDebug, Format: FormatJSON},
	}
	if !c.Equal(want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	if c.Equal(Default()) {
		t.Error("Equal does not tell the file from the defaults")
	}
	s, ok := c.Source("node.mtu")
	if !ok || s.Line != 6 || s.Column != 7 || s.File != "testdata/good/full.toml" {
		t.Errorf("source of node.mtu: %+v, %v", s, ok)
	}
	if got := fmt.Sprint(c.Gateway.Listen[1:]); got != "[[2001:db8::1]:443 :8443]" {
		t.Errorf("listen addresses print as %s", got)
	}
	if c.Log.Level.Slog() != slog.LevelDebug || LogLevel("x").Slog() != slog.LevelInfo {
		t.Error("level does not translate")
	}
}

// TestExample holds the documentation to the code: the example file changes nothing as it stands, and nothing
// either once every key in it is switched on.
func TestExample(t *testing.T) {
	live := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAllString(Example(), "$1")
	if n := strings.Count(live, "\n[") + strings.Count(live, " = "); n < len(Keys()) {
		t.Fatalf("only %d keys in the example", n)
	}
	for name, text := range map[string]string{"as rendered": Example(), "all keys live": live} {
		c, err := Parse("example.toml", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if !c.Equal(Default()) {
			t.Errorf("%s: differs from the defaults: %+v", name, c)
		}
	}
	c, err := Parse("example.toml", []byte(live))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if _, ok := c.Source(k.Name); !ok {
			t.Errorf("the example has no line for %s", k.Name)
		}
		if k.Doc == "" || strings.Contains(k.Doc, "\n") || strings.Contains(k.Doc, "|") {
			t.Errorf("%s: documentation %q is not one line for a table", k.Name, k.Doc)
		}
		if !strings.Contains(Table(), "`"+k.Name+"`") {
			t.Errorf("%s is missing from the table", k.Name)
		}
	}
}

// TestSamples holds the samples in remedies to the rules.
func TestSamples(t *testing.T) {
	skipWindows(t)
	for _, k := range keyTable() {
		text := "[" + k.section() + "]\n" + k.leaf() + " = " + k.sample + "\n"
		if _, err := Parse("sample.toml", []byte(text)); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}

// TestKeysCoverConfig fails when a field has no key.
func TestKeysCoverConfig(t *testing.T) {
	fields := 0
	for section := range reflect.TypeFor[Config]().Fields() {
		if section.IsExported() {
			fields += section.Type.NumField()
		}
	}
	if n := len(Keys()); n != fields {
		t.Errorf("%d keys for %d fields", n, fields)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.toml")
	if err := os.WriteFile(large, []byte(strings.Repeat("#", MaxFileBytes+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(dir, "full.toml")
	if err := os.WriteFile(full, []byte(strings.Repeat("#", MaxFileBytes)), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.toml")
	_, err := Load(missing)
	if !errors.Is(err, fs.ErrNotExist) || len(Problems(err)) != 1 {
		t.Errorf("missing file: %v", err)
	}
	if !strings.HasPrefix(err.Error(), missing+": cannot be read: ") {
		t.Errorf("missing file: %v", err)
	}
	for path, want := range map[string]string{dir: "not a regular file", large: "larger than 1048576 bytes"} {
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := Load(full); err != nil {
		t.Errorf("a file of the largest size is refused: %v", err)
	}
	if _, err := Parse("x", make([]byte, MaxFileBytes+1)); err == nil {
		t.Error("Parse takes more than the limit")
	}
}

func TestResolveMissingFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.toml")
	if c, err := Resolve(missing, false, Flags{}); err != nil || !c.Equal(Default()) {
		t.Errorf("an absent file is no default: %v", err)
	}
	if _, err := Resolve(missing, true, Flags{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a named file may be absent: %v", err)
	}
	// Another failure to read is never taken for absence.
	if _, err := Resolve(t.TempDir(), false, Flags{}); err == nil {
		t.Error("a directory passes for an absent file")
	}
}

func TestCheckRole(t *testing.T) {
	c, err := Parse("m.toml", []byte("[node]\nname = 'a'\n[gateway]\nlisten = ':443'\nport_mapping = 'off'\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.CheckRole(RoleGateway); got != nil {
		t.Errorf("gateway: %v", got)
	}
	got := c.CheckRole(RoleMember)
	if len(got) != 2 || got[0].Key != "gateway.listen" || got[0].Line != 4 || got[1].Line != 5 {
		t.Errorf("member: %v", got)
	}
	if got := Default().CheckRole(RoleMember); got != nil {
		t.Errorf("defaults contradict the member's role: %v", got)
	}
}

func TestCheckWithoutSource(t *testing.T) {
	c := Default()
	c.Node.MTU = 100
	c.Gateway.Network = []netip.Prefix{{}}
	c.Routes.Advertise = []netip.Prefix{{}, {}}
	got := c.Check()
	if len(got) == 0 {
		t.Fatal("accepted")
	}
	want := "node.mtu: 100 is out of range; use 1280 to 1420, or 0 for automatic"
	if err := AsError(got); !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	if AsError(Default().Check()) != nil {
		t.Error("the defaults do not pass")
	}
	if err := AsError(nil); err != nil {
		t.Error("no problems make an error")
	}
}

func TestNodeName(t *testing.T) {
	for host, want := range map[string]string{
		"Laptop.fritz.box": "laptop", "my_pc": "my-pc", "": "node", "...": "node", "ünï": "n",
		strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		if got := NodeName(host); got != want {
			t.Errorf("NodeName(%q) = %q, want %q", host, got, want)
		}
		c := Default()
		c.Node.Name = NodeName(host)
		if p := checkName(&c); p != nil {
			t.Errorf("NodeName(%q) does not pass: %v", host, p)
		}
	}
}
