package bench

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		samples []float64
		want    float64
	}{
		{[]float64{7}, 7},
		{[]float64{3, 1}, 2},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := slices.Clone(tt.samples)
		if got := median(tt.samples); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.samples, got, tt.want)
		}
		if !slices.Equal(before, tt.samples) {
			t.Errorf("median has sorted its argument: %v", tt.samples)
		}
	}
}

func TestSummarise(t *testing.T) {
	got := Summarise([]Sample{{KeyTCPUp: 3, KeyCPU: 1}, {KeyTCPUp: 1}, {KeyTCPUp: 2}})
	up := got[KeyTCPUp]
	if up.Median != 2 || up.Min != 1 || up.Max != 3 || !slices.Equal(up.Samples, []float64{3, 1, 2}) {
		t.Errorf("got %+v", up)
	}
	if cpu := got[KeyCPU]; cpu.Median != 1 || len(cpu.Samples) != 1 {
		t.Errorf("got %+v", cpu)
	}
	if _, found := got[KeyMemory]; found || len(got) != 2 {
		t.Errorf("got %v, want two measures", got)
	}
}

func TestCompare(t *testing.T) {
	contender := func(name string, passes ...Sample) Contender {
		return Contender{Name: name, Results: Summarise(passes)}
	}
	ours := contender("aetherd", Sample{KeyTCPUp: 4, KeySmall: 10, KeyCPU: 1}, Sample{KeyTCPUp: 6, KeySmall: 20, KeyCPU: 1})
	theirs := contender("rival", Sample{KeyTCPUp: 10, KeySmall: 15, KeyIdleP50: 1}, Sample{KeyTCPUp: 10, KeySmall: 30})
	want := []Ratio{
		{Key: KeyTCPUp, Of: "aetherd", To: "rival", Value: 0.5},
		{Key: KeySmall, Of: "aetherd", To: "rival", Value: 15.0 / 22.5, WithinNoise: true},
	}
	if got := Compare(ours, theirs); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	once := contender("once", Sample{KeyTCPUp: 5})
	if got := Compare(once, once); len(got) != 1 || got[0].WithinNoise {
		t.Errorf("got %+v: one pass knows no noise", got)
	}
	zero := contender("zero", Sample{KeyTCPUp: 0})
	if got := Compare(once, zero); len(got) != 0 {
		t.Errorf("got %+v, want no ratio to nothing", got)
	}
}

func TestCleanRate(t *testing.T) {
	for _, tt := range []struct {
		name             string
		limit            float64 // of the path
		sender           float64 // limit of the sender
		flaky            int     // every so many attempts fail for no reason; 0 is never
		atLeast, atMost  float64
		attemptsAtMostly int
	}{
		{"a usual path", 130e3, math.Inf(1), 0, 124e3, 130e3, 20},
		{"a slow path", 1500, math.Inf(1), 0, 1430, 1500, 20},
		{"exactly the first rate", firstRate, math.Inf(1), 0, firstRate, firstRate, 20},
		{"nothing is clean", 10, math.Inf(1), 0, 0, 0, 20},
		{"a slow sender", math.Inf(1), 300e3, 0, 300e3, 300e3, 8},
		{"no limit at all", math.Inf(1), math.Inf(1), 0, highestRate / 2, highestRate, 12},
		{"bursts of loss", 130e3, math.Inf(1), 3, 124e3, 130e3, 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attempts := 0
			got, err := cleanRate(func(rate float64) (attempt, error) {
				attempts++
				sent := min(rate, tt.sender)
				bad := tt.flaky > 0 && attempts%tt.flaky == 0
				return attempt{sent: sent, clean: sent <= tt.limit && !bad}, nil
			})
			if err != nil || got < tt.atLeast || got > tt.atMost {
				t.Errorf("got %.0f, %v, want %.0f to %.0f", got, err, tt.atLeast, tt.atMost)
			}
			if attempts > tt.attemptsAtMostly {
				t.Errorf("took %d attempts, want at most %d", attempts, tt.attemptsAtMostly)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := cleanRate(func(float64) (attempt, error) { return attempt{}, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the attempt", err)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.000123: "0.0001", 0.0456: "0.0456", 0.5: "0.500", 1: "1.00", 12.345: "12.3", 999.4: "999", 30783: "30783",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}

// report makes one in which every measure has a value, with a rival or without.
func report(passes int, contenders ...string) Report {
	r := Report{
		Machine: Machine{CPU: "Some Processor 9000", Cores: 2, MemoryBytes: 16e9, Kernel: "6.1.0", Arch: "amd64", Go: "go1.26"},
		Began:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 3, Passes: passes, Measures: Measures(),
	}
	for i, name := range contenders {
		var samples []Sample
		for pass := range passes {
			s := make(Sample)
			for _, m := range Measures() {
				if i > 0 || (m.Key != KeyCPU && m.Key != KeyMemory) {
					s[m.Key] = m.scale * float64(10*(i+1)+pass)
				}
			}
			samples = append(samples, s)
		}
		c := Contender{Name: name, Results: Summarise(samples)}
		if i > 0 {
			c.Version = "v1.0"
		}
		r.Contenders = append(r.Contenders, c)
	}
	for i, c := range r.Contenders {
		if i != 1 {
			r.Ratios = append(r.Ratios, Compare(r.Contenders[1], c)...)
		}
	}
	return r
}

func tableText(t *testing.T, r Report, color bool) string {
	t.Helper()
	var b strings.Builder
	if err := WriteTable(&b, r, color); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTable(t *testing.T) {
	text := tableText(t, report(3, "bare link", "aetherd", rivalName), false)
	for _, want := range []string{
		"Some Processor 9000, 2 cores, 16 GB; Linux 6.1.0 amd64",
		"aetherd v1.0, wireguard-go v1.0; built with go1.26; 3 passes of 3.00 s",
		"  TCP, 1 stream up      Gbit/s     11.0  10.0..12.0      21.0  20.0..22.0      31.0  30.0..32.0     0.677×",
		"  CPU of both daemons   s/GB          –                  21.0  20.0..22.0      31.0  30.0..32.0     0.677×",
		"Ratio: aetherd to wireguard-go.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q", want)
		}
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 110 {
			t.Errorf("a line has %d columns: %q", n, line)
		}
	}
	if strings.Contains(text, "busy") || strings.Contains(text, "\x1b") {
		t.Error("a quiet machine is called busy, or there is colour that nobody has asked for")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestTableWithoutRival(t *testing.T) {
	r := report(1, "bare link", "aetherd")
	r.Machine.LoadAverage = 1.5
	text := tableText(t, r, false)
	for _, want := range []string{
		"The machine was busy before the start: load average 1.5 on 2 cores.",
		"One pass says nothing about noise", "Ratio: aetherd to bare link.", "2.00×", "1 pass of",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	colored := tableText(t, r, true)
	if plain := strings.NewReplacer("\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[0m", "").
		Replace(colored); plain != text {
		t.Errorf("colour changes more than colour:\n%s", plain)
	}
	const more, less = "\x1b[32m  2.00×", "\x1b[31m  2.00×"
	if !strings.Contains(colored, more) || !strings.Contains(colored, less) {
		t.Error("twice as much should be good for some measures and bad for others")
	}
}

func TestProgress(t *testing.T) {
	now := time.Unix(0, 0)
	play := func(terminal bool) string {
		var b strings.Builder
		p := NewProgress(&b, terminal, func() time.Time { return now })
		p.start(100 * time.Second)
		p.pass(1, 2, "aetherd")
		p.step("first", 50*time.Second)
		now = now.Add(100 * time.Second) // twice as long as expected
		p.step("second", 50*time.Second)
		p.end()
		return b.String()
	}
	want := "\r\x1b[K    0 %  pass 1 of 2, aetherd: first, 1 min 40 s left" +
		"\r\x1b[K   50 %  pass 1 of 2, aetherd: second, 1 min 40 s left\r\x1b[K"
	if got := play(true); got != want {
		t.Errorf("on a terminal\n%q, want\n%q", got, want)
	}
	want = "bench: about 1 min 40 s\nbench: pass 1 of 2, aetherd\n"
	if got := play(false); got != want {
		t.Errorf("elsewhere\n%q, want\n%q", got, want)
	}
}

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
