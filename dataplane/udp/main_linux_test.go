package udp

import (
	"flag"
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets package net find out which families there are while it is in a network with loopback: it does so once, and
// the tests' own networks have none at first. For BenchmarkWake the binary is an echo server.
func TestMain(m *testing.M) {
	if how := os.Getenv(echoVariable); how != "" {
		if err := echo(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	c, err := net.ListenPacket("udp", ":0")
	if err == nil {
		err = c.Close()
	}
	flag.Parse()
	if err == nil {
		err = keepOrder()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
