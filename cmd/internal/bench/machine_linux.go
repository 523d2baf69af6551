package bench

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// thisMachine says where the benchmark runs.
func thisMachine() (Machine, error) {
	m := Machine{CPU: cpuModel(), Cores: runtime.NumCPU(), Arch: runtime.GOARCH, Go: runtime.Version()}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("ask for the kernel's name: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("ask for the machine's memory: %w", err)
	}
	m.MemoryBytes = int64(info.Totalram) * int64(info.Unit)
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("ask for the load: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	if m.LoadAverage, err = strconv.ParseFloat(first, 64); err != nil {
		return m, fmt.Errorf("ask for the load: %w", err)
	}
	return m, nil
}

// cpuModel is the name that the processor has for itself, where the kernel passes it on.
func cpuModel() string {
	const unknown = "unknown processor"
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return unknown
}
