package demo

import (
	"fmt"
	"net/netip"
	"time"
)

// A Result is what a demonstration found. It is also the form of `aetherd demo --json`.
type Result struct {
	OK      bool          `json:"ok"`
	Elapsed time.Duration `json:"elapsed_nanos"`
	Session Session       `json:"session"`
	Checks  []Check       `json:"checks"`
}

// Session is how the two nodes are joined.
type Session struct {
	KeyExchange      string         `json:"key_exchange"` // the negotiated TLS group
	Remote           string         `json:"remote"`       // the gateway as the laptop sees it
	LaptopAddresses  []netip.Addr   `json:"laptop_addresses"`
	GatewayAddresses []netip.Addr   `json:"gateway_addresses"`
	Routes           []netip.Prefix `json:"routes"` // what the laptop sends into the tunnel
}

// Kind is what a [Check] tries, and thereby which of its values are set.
type Kind string

// The kinds of checks.
const (
	KindPing       Kind = "ping"       // Sent, Received, RTT
	KindPage       Kind = "page"       // HTTPStatus, PageBytes, PageTime
	KindThroughput Kind = "throughput" // BitsPerSecond
	KindRTT        Kind = "rtt"        // Sent, Received, RTT; BitsPerSecond of the TCP stream beside it, if any
)

// A Check is one thing that was tried through the tunnel.
type Check struct {
	Name   string `json:"name"`
	Kind   Kind   `json:"kind"`
	Target string `json:"target"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"` // why not

	Sent          int64         `json:"sent,omitempty"`
	Received      int64         `json:"received,omitempty"` // answered in time
	RTT           RTT           `json:"rtt,omitzero"`
	HTTPStatus    int           `json:"http_status,omitempty"`
	PageBytes     int           `json:"page_bytes,omitempty"`
	PageTime      time.Duration `json:"page_nanos,omitempty"` // from before the connection is made to the last byte
	BitsPerSecond float64       `json:"bits_per_second,omitempty"`
}

// RTT is a distribution of round trip times.
type RTT struct {
	P50  time.Duration `json:"p50_nanos"`
	P99  time.Duration `json:"p99_nanos"`
	P999 time.Duration `json:"p999_nanos"`
}

// Failures returns the names of the checks that failed.
func (r Result) Failures() []string {
	var names []string
	for _, c := range r.Checks {
		if !c.OK {
			names = append(names, c.Name)
		}
	}
	return names
}

// Text is the outcome on one line.
func (c Check) Text() string {
	if !c.OK {
		return "FAILED: " + c.Error
	}
	switch c.Kind {
	case KindPing:
		return fmt.Sprintf("%d of %d answered, %s", c.Received, c.Sent, millis(c.RTT.P50))
	case KindPage:
		return fmt.Sprintf("status %d, %d bytes in %s", c.HTTPStatus, c.PageBytes, millis(c.PageTime))
	case KindThroughput:
		return bitsText(c.BitsPerSecond)
	case KindRTT:
	}
	text := fmt.Sprintf("p50 %s  p99 %s  p99.9 %s", millis(c.RTT.P50), millis(c.RTT.P99), millis(c.RTT.P999))
	if c.BitsPerSecond > 0 {
		text += fmt.Sprintf("  at %s", bitsText(c.BitsPerSecond))
	}
	return text
}

// millis writes a time in milliseconds, with as many digits as mean something.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// bitsText writes a rate with the unit that suits it.
func bitsText(bitsPerSecond float64) string {
	if bitsPerSecond >= 1e9 {
		return fmt.Sprintf("%.2f Gbit/s", bitsPerSecond/1e9)
	}
	return fmt.Sprintf("%.1f Mbit/s", bitsPerSecond/1e6)
}
