package udp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// echoVariable makes the test binary an echo server, in the way that it names.
const echoVariable = "AETHERTUNNEL_TEST_UDP_ECHO"

// echo answers datagrams on loopback. It prints its address, and its CPU time whenever a line is read.
func echo(how string) error {
	cfg := Config{Address: netip.MustParseAddrPort("127.0.0.1:0"), WithoutBatch: how == "singly"}
	c, err := Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	fmt.Println(c.LocalAddr())
	failed := make(chan error, 1)
	go func() {
		ms := messages(8)
		for {
			n, err := c.Receive(ms)
			if err != nil {
				failed <- err
				return
			}
			for i := range ms[:n] {
				d, err := c.NewDestination(ms[i].From, netip.Addr{}, 0)
				if err == nil {
					err = c.Send(ms[i].Data, ms[i].SegmentBytes, 0, d)
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			return err
		}
		fmt.Println(u.Utime.Nano() + u.Stime.Nano())
	}
	if err := c.Close(); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// BenchmarkWake: a datagram to another process and back, which sleeps in between; both with recvmmsg and sendmmsg, or the
// other one through package net. (Two ends in one process would share the poller's thread.) cpu-ns/op is the CPU time of
// the process that echoes.
func BenchmarkWake(b *testing.B) {
	for _, how := range []string{"batches", "singly"} {
		b.Run(how, func(b *testing.B) {
			cmd := exec.CommandContext(b.Context(), os.Args[0])
			cmd.Env, cmd.Stderr = append(os.Environ(), echoVariable+"="+how), os.Stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				b.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() {
				b.Fatal("no address")
			}
			c := openLocal(b, Config{})
			d := to(b, c, netip.MustParseAddrPort(lines.Text()))
			cpu := func() (nanos int64) {
				if _, err := fmt.Fprintln(in); err != nil || !lines.Scan() {
					b.Fatal(err)
				}
				if _, err := fmt.Sscan(lines.Text(), &nanos); err != nil {
					b.Fatal(err)
				}
				return nanos
			}
			ms, before := messages(1), cpu()
			for b.Loop() {
				if err := c.Send([]byte("x"), 0, 0, d); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Receive(ms); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
			if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
