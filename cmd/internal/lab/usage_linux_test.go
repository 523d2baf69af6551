package lab

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestProcessUsage(t *testing.T) {
	block := make([]byte, 32<<20)
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; {
		for i := range block {
			block[i]++
		}
	}
	usage, err := ProcessUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if usage.PeakRSSBytes < int64(len(block)) || usage.CPU <= 0 {
		t.Errorf("after filling %d bytes: %+v", len(block), usage)
	}
	if cpu, err := ProcessCPU(os.Getpid()); err != nil || cpu < usage.CPU {
		t.Errorf("CPU time alone is %v, %v; it was %v before", cpu, err, usage.CPU)
	}
	if _, err := ProcessUsage(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
	if _, err := ProcessCPU(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}

func TestUsageOfAZombie(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cmd.Start(), in.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err == nil { // the end of its output: it is ending
		t.Error("cat of nothing wrote something")
	}
	for { // its memory goes a moment later
		if _, err := ProcessUsage(cmd.Process.Pid); err != nil {
			if !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 1 0 100 1000 10"))
	f.Add([]byte("7 (cut) S 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if cpu, err := parseStat(b); err == nil && cpu < 0 {
			t.Errorf("%q: %v", b, cpu)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t 1 kB\n"))
	f.Add([]byte("VmHWM:\t99999999999999999999 kB\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if peak, err := parseStatus(b); err == nil && peak < 0 {
			t.Errorf("%q: %d", b, peak)
		}
	})
}

func TestParseUsage(t *testing.T) {
	fields := strings.Repeat(" 0", 10)
	for _, test := range []struct {
		stat string
		want time.Duration
		ok   bool
	}{
		{"7 (sh) S" + fields + " 250 150 9 9", 4 * time.Second, true},
		{"7 (a) b) 1 2 (c) S" + fields + " 1 0", 10 * time.Millisecond, true},
		{"7 (sh) S" + fields, 0, false},
		{"7 (sh) S" + fields + " -1 0", 0, false},
		{"7 (sh) S" + fields + " 9223372036854775807 0", 0, false},
		{"", 0, false},
	} {
		if got, err := parseStat([]byte(test.stat)); got != test.want || (err == nil) != test.ok {
			t.Errorf("%q: %v, %v", test.stat, got, err)
		}
	}
	if got, err := parseStatus([]byte("Name:\tx\nVmHWM:\t    1234 kB\n")); got != 1234<<10 || err != nil {
		t.Errorf("VmHWM is %d, %v", got, err)
	}
	if _, err := parseStatus([]byte("VmHWM:\t12 MB\n")); err == nil || errors.Is(err, os.ErrProcessDone) {
		t.Errorf("unknown unit: %v", err)
	}
}

// FuzzAttributes walks replies of the kernel's ethtool family.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{12, 0, 4, 0x80, 8, 0, 3, 0x80, 4, 0, 1, 0})
	f.Add([]byte{3, 0, 4, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, err := activeFeatures([][]byte{append(make([]byte, 4), b...)})
		_ = err // any answer will do, as long as there is one
	})
}
