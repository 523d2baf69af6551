package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of CPU times in /proc: 100 on every architecture that Go supports
// on Linux.
const ticksPerSecond = 100

// Usage is what a process has used of the machine so far.
type Usage struct {
	CPU          time.Duration // user and system time of all its threads, in steps of 10 ms
	PeakRSSBytes int64         // the most memory it ever had resident (VmHWM)
}

// ProcessUsage reads the usage of a running process from /proc (proc(5): stat, status). For a process
// that has ended and not been waited for, the error matches [os.ErrProcessDone].
func ProcessUsage(pid int) (Usage, error) {
	usage, err := readUsage(pid)
	if err != nil {
		return Usage{}, fmt.Errorf("read usage of process %d: %w", pid, err)
	}
	return usage, nil
}

// ProcessCPU reads the CPU time that a process has used so far, in steps of 10 ms. Unlike [ProcessUsage] it knows the
// threads of the kernel too, which are processes without memory.
func ProcessCPU(pid int) (time.Duration, error) {
	cpu, err := readCPU(pid)
	if err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return cpu, nil
}

func readCPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(stat)
}

func readUsage(pid int) (Usage, error) {
	cpu, err := readCPU(pid)
	if err != nil {
		return Usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	peak, err := parseStatus(status)
	if err != nil {
		return Usage{}, err
	}
	return Usage{CPU: cpu, PeakRSSBytes: peak}, nil
}

// parseStat takes utime and stime, fields 14 and 15, from /proc/PID/stat. Field 2, the command, may
// hold spaces and parentheses; the last closing one ends it.
func parseStat(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("stat has no command")
	}
	fields := bytes.Fields(stat[end+1:]) // begins with field 3
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat has %d fields after the command, want at least 13", len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] {
		t, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		if t < 0 || t > (1<<61)/int64(time.Second/ticksPerSecond) {
			return 0, fmt.Errorf("stat: CPU time of %d ticks", t)
		}
		ticks += t
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond), nil
}

// parseStatus takes VmHWM from /proc/PID/status. A zombie has given its memory back and has no such
// line.
func parseStatus(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		value, found := bytes.CutPrefix(line, []byte("VmHWM:"))
		if !found {
			continue
		}
		fields := bytes.Fields(value)
		if len(fields) != 2 || string(fields[1]) != "kB" {
			return 0, fmt.Errorf("status: VmHWM is %q", value)
		}
		kibibytes, err := strconv.ParseInt(string(fields[0]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("status: VmHWM: %w", err)
		}
		if kibibytes < 0 || kibibytes > 1<<52 {
			return 0, fmt.Errorf("status: VmHWM of %d kB", kibibytes)
		}
		return kibibytes << 10, nil
	}
	return 0, os.ErrProcessDone
}
