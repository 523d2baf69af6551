package traffic_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/cmd/internal/lab"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/labtest"
	"github.com/aethertunnel/aethertunnel/cmd/internal/lab/traffic"
)

// cable returns two namespaces joined by a veth; the addresses of b are 192.0.2.2 and 2001:db8::2.
func cable(t *testing.T) (a, b *lab.Namespace) {
	t.Helper()
	a, b = labtest.Namespace(t, "a"), labtest.Namespace(t, "b")
	left, right := a.Interface("eth0"), b.Interface("eth0")
	labtest.Veth(t, left, right, 1500)
	err := errors.Join(left.AddAddress("192.0.2.1/24", "2001:db8::1/64"),
		right.AddAddress("192.0.2.2/24", "2001:db8::2/64"))
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

var families = []struct{ name, listen, host string }{
	{"IPv4", "192.0.2.2:0", "192.0.2.2"},
	{"IPv6", "[2001:db8::2]:0", "2001:db8::2"},
}

func TestBulk(t *testing.T) {
	a, b := cable(t)
	for _, family := range families {
		server := labtest.Serve(t, b, family.listen)
		for _, bulk := range []traffic.Bulk{
			{Duration: 300 * time.Millisecond},
			{
				Duration: 300 * time.Millisecond, Download: true, Streams: 8,
				Congestion: "reno", Interval: 50 * time.Millisecond,
			},
		} {
			result, err := bulk.Run(t.Context(), a, server.Addr())
			if err != nil {
				t.Fatalf("%s, %+v: %v", family.name, bulk, err)
			}
			var sum int64
			for _, bytes := range result.IntervalBytes {
				sum += bytes
			}
			if result.Bytes == 0 || sum != result.Bytes || result.Elapsed <= 0 || result.BitsPerSecond() <= 0 {
				t.Errorf("%s, %+v: %+v", family.name, bulk, result)
			}
			t.Logf("%s, %d streams: %.2f Gbit/s", family.name, bulk.Streams, result.BitsPerSecond()/1e9)
		}
	}
}

func TestPaced(t *testing.T) {
	a, b := cable(t)
	for _, family := range families {
		server := labtest.Serve(t, b, family.listen)
		for _, paced := range []traffic.Paced{
			{Bytes: 12, PacketsPerSecond: 500, Duration: 200 * time.Millisecond},
			{PacketsPerSecond: 20_000, Duration: 300 * time.Millisecond},
			{Duration: 300 * time.Millisecond},
		} {
			result, err := paced.Run(t.Context(), a, server.Addr())
			if err != nil {
				t.Fatalf("%s, %+v: %v", family.name, paced, err)
			}
			if result.Sent == 0 || result.Refused != 0 || result.Received > result.Sent ||
				result.Reordered > result.Received || result.Duplicates != 0 {
				t.Errorf("%s, %+v: %+v", family.name, paced, result)
			}
			if want := paced.PacketsPerSecond * paced.Duration.Seconds(); want > 0 && float64(result.Sent) > want {
				t.Errorf("%s: %d packets sent, more than %v", family.name, result.Sent, want)
			}
			// A cable loses nothing, except where the receiver's socket or its queue of packets overflowed.
			if paced.PacketsPerSecond == 500 && result.Lost() != 0 {
				t.Errorf("%s: a cable lost %d packets of a slow sender", family.name, result.Lost())
			}
			t.Logf("%s: %.0f packets/s, %+v", family.name, result.SentPerSecond(), result)
		}
	}
}

func TestEcho(t *testing.T) {
	a, b := cable(t)
	for _, family := range families {
		server := labtest.Serve(t, b, family.listen)
		for _, echo := range []traffic.Echo{
			{Duration: 100 * time.Millisecond},
			{Network: "tcp", Bytes: 20, Duration: 100 * time.Millisecond},
			{PerSecond: 1000, Duration: 200 * time.Millisecond, Timeout: 10 * time.Second},
			{
				Network: "tcp", Bytes: 30_000, PerSecond: 1000,
				Duration: 200 * time.Millisecond, Timeout: 10 * time.Second,
			},
		} {
			result, err := echo.Run(t.Context(), a, server.Addr())
			if err != nil {
				t.Fatalf("%s, %+v: %v", family.name, echo, err)
			}
			if result.Sent == 0 || result.Lost() != 0 ||
				result.RTT.Count() != int(result.Received) || result.RTT.Min() <= 0 {
				t.Errorf("%s, %+v: %+v", family.name, echo, result)
			}
			t.Logf("%s, %s at %v/s: %v", family.name, echo.Network, echo.PerSecond, result.RTT)
		}
	}
}

// Requests must find their way back among packets that are only counted, and to the right one of several clients.
func TestEchoBesidePaced(t *testing.T) {
	a, b := cable(t)
	server := labtest.Serve(t, b, "192.0.2.2:0")
	var runs errgroup.Group
	for range 3 {
		runs.Go(func() error {
			paced := traffic.Paced{PacketsPerSecond: 20_000, Duration: 500 * time.Millisecond}
			_, err := paced.Run(t.Context(), a, server.Addr())
			return err
		})
		runs.Go(func() error {
			echo := traffic.Echo{PerSecond: 2000, Duration: 400 * time.Millisecond, Timeout: 10 * time.Second}
			result, err := echo.Run(t.Context(), a, server.Addr())
			if result.Lost() > 0 || result.Duplicates > 0 {
				t.Errorf("%+v", result)
			}
			return err
		})
	}
	if err := runs.Wait(); err != nil {
		t.Error(err)
	}
}

func TestPingAndErrors(t *testing.T) {
	a, b := cable(t)
	for _, family := range families {
		to := netip.MustParseAddr(family.host)
		four := traffic.Ping{Count: 4, Interval: time.Millisecond, Bytes: 1000, Timeout: 10 * time.Second}
		result, err := four.Run(t.Context(), a, to)
		if err != nil || result.Sent != 4 || result.Lost() != 0 || result.RTT.Count() != 4 {
			t.Errorf("%s: %+v, %v", family.name, result, err)
		}
		own, err := traffic.Ping{Timeout: 10 * time.Second}.Run(t.Context(), b, to)
		if err != nil || own.Lost() != 0 {
			t.Errorf("%s, own address: %+v, %v", family.name, own, err)
		}
		big, err := traffic.Ping{Bytes: 4000, Timeout: 10 * time.Second}.Run(t.Context(), a, to)
		if err != nil || big.Lost() != 0 {
			t.Errorf("%s, in fragments: %+v, %v", family.name, big, err)
		}
		whole, err := traffic.Ping{Bytes: 4000, DontFragment: true}.Run(t.Context(), a, to)
		if err != nil || whole.Lost() != 1 {
			t.Errorf("%s, too big for the link: %+v, %v", family.name, whole, err)
		}
	}
	if _, err := (traffic.Ping{Bytes: 3}).Run(t.Context(), a, netip.MustParseAddr("192.0.2.2")); err == nil {
		t.Error("a payload too short to be recognised was taken")
	}
}

func TestWeb(t *testing.T) {
	a, b := cable(t)
	for _, family := range families {
		site := http.NewServeMux()
		site.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
			if _, err := io.WriteString(w, "a page"); err != nil {
				t.Error(err)
			}
		})
		web, err := traffic.ServeWeb(b, family.listen, site)
		if err != nil {
			t.Fatal(err)
		}
		page, err := traffic.Fetch(t.Context(), a, web.URL()+"page")
		if err != nil || page.Status != http.StatusOK || string(page.Body) != "a page" || page.Elapsed <= 0 {
			t.Errorf("%s: %+v, %v", family.name, page, err)
		}
		missing, err := traffic.Fetch(t.Context(), a, web.URL())
		if err != nil || missing.Status != http.StatusNotFound {
			t.Errorf("%s, missing page: %+v, %v", family.name, missing, err)
		}
		if err := web.Close(); err != nil {
			t.Error(err)
		}
		if _, err := traffic.Fetch(t.Context(), a, web.URL()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s, closed server: %v", family.name, err)
		}
	}
}

// The end points must also work without namespaces.
func TestHere(t *testing.T) {
	server := labtest.Serve(t, traffic.Here{}, "127.0.0.1:0")
	result, err := traffic.Echo{Duration: 50 * time.Millisecond}.Run(t.Context(), traffic.Here{}, server.Addr())
	if err != nil || result.Received == 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestRunsEndWithTheirContext(t *testing.T) {
	a, b := cable(t)
	server := labtest.Serve(t, b, "192.0.2.2:0")
	over := errors.New("over")
	for name, run := range map[string]func(context.Context) error{
		"upload": func(ctx context.Context) error {
			_, err := traffic.Bulk{Duration: time.Hour}.Run(ctx, a, server.Addr())
			return err
		},
		"download": func(ctx context.Context) error {
			_, err := traffic.Bulk{Duration: time.Hour, Download: true, Streams: 3}.Run(ctx, a, server.Addr())
			return err
		},
		"paced": func(ctx context.Context) error {
			_, err := traffic.Paced{PacketsPerSecond: 100, Duration: time.Hour}.Run(ctx, a, server.Addr())
			return err
		},
		"echo": func(ctx context.Context) error {
			_, err := traffic.Echo{Duration: time.Hour}.Run(ctx, a, server.Addr())
			return err
		},
		"echo over TCP at a rate": func(ctx context.Context) error {
			_, err := traffic.Echo{Network: "tcp", PerSecond: 10, Duration: time.Hour}.Run(ctx, a, server.Addr())
			return err
		},
		"ping": func(ctx context.Context) error {
			_, err := traffic.Ping{Count: 2, Interval: time.Hour}.Run(ctx, a, server.Addr().Addr())
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(50*time.Millisecond, func() { cancel(over) })
		if err := run(ctx); !errors.Is(err, over) {
			t.Errorf("%s ended with %v", name, err)
		}
		timer.Stop()
		cancel(nil)
	}
}

func TestServerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server, err := traffic.Serve(ctx, traffic.Here{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", server.Addr().String()) // and says nothing
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := errors.Join(server.Close(), conn.Close()); err != nil {
		t.Error(err)
	}
}

func TestUnreachableServers(t *testing.T) {
	a, _ := cable(t)
	nobody := netip.MustParseAddrPort("192.0.2.2:9")
	_, bulk := traffic.Bulk{}.Run(t.Context(), a, nobody)
	_, paced := traffic.Paced{}.Run(t.Context(), a, nobody)
	_, echo := traffic.Echo{Network: "tcp"}.Run(t.Context(), a, nobody)
	for _, err := range []error{bulk, paced, echo} {
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
	}
	deaf := traffic.Echo{PerSecond: 100, Duration: 100 * time.Millisecond, Timeout: 10 * time.Millisecond}
	lost, err := deaf.Run(t.Context(), a, nobody)
	if err != nil || lost.Sent == 0 || lost.Received != 0 {
		t.Errorf("echo over UDP to nobody: %+v, %v", lost, err)
	}
}

func TestServerReportsBadRequests(t *testing.T) {
	server, err := traffic.Serve(t.Context(), traffic.Here{}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.Repeat("?", 64)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a bad request was answered: %v", err)
	}
	if err := server.Close(); err == nil || !strings.Contains(err.Error(), "not a request") {
		t.Errorf("Close returned %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
