package portmap

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a protocol whose answers a test writes down; it lives in a bubble of virtual time.
type scripted struct {
	id       Protocol
	probing  func(ctx context.Context) error
	grant    func(n int, want request) (lease, error)
	lostNow  atomic.Bool
	failFree error

	mu       sync.Mutex
	asked    []time.Time
	wanted   []request
	released int
}

func (s *scripted) name() Protocol { return s.id }

func (s *scripted) probe(ctx context.Context) error {
	if s.probing == nil {
		return nil
	}
	return s.probing(ctx)
}

func (s *scripted) acquire(_ context.Context, want request) (lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.wanted = append(s.asked, time.Now()), append(s.wanted, want)
	return s.grant(len(s.asked), want)
}

func (s *scripted) release(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released++
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.failFree
}

func (s *scripted) announced(a announcement) bool { return s.lostNow.Load() && a.protocol == s.id }

func (s *scripted) count() int { return len(s.times()) }

func (s *scripted) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func granted(external string, lifetime time.Duration) (lease, error) {
	return lease{external: netip.MustParseAddrPort(external), lifetime: lifetime}, nil
}

// bubble runs a Client over scripted protocols and gives it, its events and a function that ends it.
func bubble(t *testing.T, protocols ...protocol) (_ *Client, seen func() []Event, _ chan<- announcement,
	stop func() error,
) {
	t.Helper()
	var mu sync.Mutex
	var events []Event
	c, err := newClient(Config{
		Gateway: netip.MustParseAddr("192.168.1.1"), LocalAddr: netip.MustParseAddr("192.168.1.2"),
		InternalPort: 443,
		OnEvent: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		},
	}, places{})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan announcement)
	c.protocols = protocols
	c.listen = func(ctx context.Context, found chan<- announcement) error {
		for {
			select {
			case a := <-heard:
				found <- a
			case <-ctx.Done():
				return nil
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = func() error { cancel(); return <-done }
	seen = func() []Event {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(events)
	}
	return c, seen, heard, stop
}

func TestRenewsAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{id: PCP, grant: func(int, request) (lease, error) {
			return granted("203.0.113.5:8443", time.Hour)
		}}
		start := time.Now()
		c, seen, _, stop := bubble(t, p)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if n := p.count(); n < 8 || n > 11 {
			t.Errorf("asked %d times in five hours", n)
		}
		last := start
		for i, at := range p.times()[1:] {
			if gap := at.Sub(last); gap < 30*time.Minute || gap > 37*time.Minute+31*time.Second {
				t.Errorf("renewal %d after %s of an hour", i, gap)
			}
			last = at
		}
		if p.wanted[0].external.Port() != 443 || p.wanted[1].external.String() != "203.0.113.5:8443" {
			t.Errorf("asked for %v, then for %v", p.wanted[0], p.wanted[1])
		}
		if n := len(seen()); n != 1 {
			t.Errorf("%d events for one unchanged mapping", n)
		}
		if left := time.Until(c.Current().Mapping.Expires); left < 20*time.Minute || left > time.Hour {
			t.Errorf("the present expiry is %s away", left)
		}
		if err := stop(); err != nil || p.released != 1 {
			t.Errorf("released %d times, %v", p.released, err)
		}
	})
}

func TestExternalAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{id: NATPMP, grant: func(n int, _ request) (lease, error) {
			if n < 3 {
				return granted("203.0.113.5:443", time.Hour)
			}
			return granted("203.0.113.99:443", time.Hour)
		}}
		_, seen, _, stop := bubble(t, p)
		time.Sleep(2 * time.Hour)
		if err := stop(); err != nil {
			t.Error(err)
		}
		events := seen()
		if len(events) != 3 || events[1].Mapping.External.String() != "203.0.113.99:443" {
			t.Fatalf("events %+v", events)
		}
		// Nobody may go on advertising a mapping that Run has removed.
		if events[2] != (Event{}) {
			t.Errorf("at the end: %+v", events[2])
		}
	})
}

// TestFailedRenewals follows one mapping from the first failed renewal to its end and to the next mapping.
func TestFailedRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lifetime = time.Hour
		var down atomic.Bool
		p := &scripted{id: PCP, grant: func(n int, _ request) (lease, error) {
			if down.Load() {
				return lease{}, errNoAnswer
			}
			return granted("203.0.113.5:443", lifetime)
		}}
		p.probing = func(context.Context) error {
			if down.Load() {
				return errNoAnswer
			}
			return nil
		}
		_, seen, _, stop := bubble(t, p)
		synctest.Wait()
		down.Store(true)
		start := time.Now()
		time.Sleep(lifetime - time.Second)
		synctest.Wait()
		if n := p.count(); n < 8 || n > 16 {
			t.Errorf("asked %d times while the mapping still lived", n)
		}
		last, limit := start, lifetime*5/8
		for i, at := range p.times()[1:] {
			if gap := at.Sub(last); gap > limit {
				t.Errorf("renewal %d comes after %s, more than %s", i+1, gap, limit)
			}
			left := lifetime - at.Sub(start)
			last, limit = at, max(left*5/8, minRenewal)
			limit = min(limit, retryFirst<<i*11/10+time.Millisecond)
		}
		if n := len(seen()); n != 1 {
			t.Errorf("%d events although the mapping still lived", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		events := seen()
		if len(events) != 2 || events[1].Usable() {
			t.Fatalf("the end of the mapping was not told: %+v", events)
		}
		if _, ok := errors.AsType[*NoAnswerError](events[1].Err); !ok {
			t.Errorf("got %v", events[1].Err)
		}
		down.Store(false)
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if events = seen(); len(events) != 3 || !events[2].Usable() {
			t.Errorf("the router came back unnoticed: %+v", events)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestFailedRefresh asks in vain on behalf of a caller whose network has changed: that is said, and tried again soon.
func TestFailedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		p := &scripted{id: PCP, grant: func(int, request) (lease, error) {
			if down.Load() {
				return lease{}, errNoAnswer
			}
			return granted("203.0.113.5:443", time.Hour)
		}}
		c, seen, _, stop := bubble(t, p)
		synctest.Wait()
		var logged strings.Builder
		c.log = slog.New(slog.NewTextHandler(&logged, nil)) // Run waits
		down.Store(true)
		c.Refresh()
		time.Sleep(4 * retryFirst)
		synctest.Wait()
		if n := p.count(); n != 4 { // the first mapping, the refresh, and after one and three times retryFirst
			t.Errorf("asked %d times", n)
		}
		down.Store(false)
		time.Sleep(5 * retryFirst)
		synctest.Wait()
		before := p.count()
		time.Sleep(25 * time.Minute)
		synctest.Wait()
		if n := p.count(); n != before {
			t.Errorf("asked %d times with a mapping just renewed", n-before)
		}
		if n := len(seen()); n != 1 {
			t.Errorf("%d events for one unchanged mapping", n)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(logged.String(), "port mapping not renewed"); n != 3 {
			t.Errorf("three failures, %d lines:\n%s", n, logged.String())
		}
	})
}

func TestAnnouncementRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{id: PCP, grant: func(int, request) (lease, error) {
			return granted("203.0.113.5:443", time.Hour)
		}}
		_, _, heard, stop := bubble(t, p)
		synctest.Wait()
		heard <- announcement{protocol: PCP, at: time.Now()}
		time.Sleep(time.Minute)
		if n := p.count(); n != 1 {
			t.Errorf("an announcement without lost state caused %d requests", n-1)
		}
		p.lostNow.Store(true)
		heard <- announcement{protocol: NATPMP, at: time.Now()}
		heard <- announcement{protocol: PCP, at: time.Now()}
		time.Sleep(announcementDelay)
		synctest.Wait()
		if n := p.count(); n != 2 {
			t.Errorf("lost state caused %d requests", n-1)
		}
		// Forged announcements cannot make the client ask more than once in a while.
		for range 100 {
			heard <- announcement{protocol: PCP, at: time.Now()}
			time.Sleep(100 * time.Millisecond)
		}
		if n := p.count(); n > 3 {
			t.Errorf("a flood of announcements caused %d requests", n-1)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var works atomic.Bool
		p := &scripted{id: UPnP, grant: func(int, request) (lease, error) {
			if !works.Load() {
				return lease{}, &RefusedError{Protocol: UPnP, Code: 606, Reason: "not authorized", Port: 443}
			}
			return granted("203.0.113.5:443", time.Hour)
		}}
		c, seen, _, stop := bubble(t, p)
		synctest.Wait()
		works.Store(true)
		c.Refresh()
		c.Refresh()
		synctest.Wait()
		if events := seen(); len(events) != 2 || !events[1].Usable() {
			t.Errorf("events %+v", events)
		}
		before := p.count()
		c.Refresh()
		synctest.Wait()
		if n := p.count(); n != before+1 {
			t.Errorf("a held mapping was asked for %d times on refresh", n-before)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestBackoff counts the rounds of a router that refuses for ever, and its wish to be left alone.
func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		retryAfter time.Duration
		least      int
		most       int
	}{{0, 6, 12}, {time.Hour, 4, 5}} {
		synctest.Test(t, func(t *testing.T) {
			p := &scripted{id: PCP, grant: func(int, request) (lease, error) {
				return lease{}, &RefusedError{Protocol: PCP, Code: 8, RetryAfter: c.retryAfter}
			}}
			_, seen, _, stop := bubble(t, p)
			time.Sleep(time.Hour)
			if n := p.count(); n < c.least || n > c.most {
				t.Errorf("retry after %s: %d requests in an hour", c.retryAfter, n)
			}
			if n := len(seen()); n != 1 {
				t.Errorf("%d events for the same refusal", n)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPreference shows the order, the grace for better protocols, and the fall-back over an unfinished probe.
func TestPreference(t *testing.T) {
	after := func(d time.Duration, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-time.After(d):
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	grants := func(int, request) (lease, error) { return granted("203.0.113.5:443", time.Hour) }
	refuses := func(int, request) (lease, error) { return lease{}, &RefusedError{Code: 2} }
	for _, c := range []struct {
		name     string
		pcp, pmp *scripted
		upnp     *scripted
		want     Protocol
		within   time.Duration
	}{
		{
			"best answers first", &scripted{grant: grants}, &scripted{grant: grants, probing: after(time.Hour, nil)},
			&scripted{grant: grants, probing: after(time.Hour, nil)}, PCP, 0,
		},
		{
			"best answers within the grace", &scripted{grant: grants, probing: after(500*time.Millisecond, nil)},
			&scripted{grant: grants}, &scripted{grant: grants}, PCP, 500 * time.Millisecond,
		},
		{
			"best is too slow", &scripted{grant: grants, probing: after(time.Hour, nil)}, &scripted{grant: refuses},
			&scripted{grant: grants, probing: after(time.Second, nil)}, UPnP, probeGrace + probeWindow + time.Second,
		},
		{
			"best is known to be silent", &scripted{probing: after(0, errNotSpoken)}, &scripted{grant: grants},
			&scripted{grant: grants, probing: after(time.Hour, nil)}, NATPMP, 0,
		},
		{
			"panic", &scripted{probing: func(context.Context) error { panic("bad") }}, &scripted{grant: grants},
			&scripted{grant: grants}, NATPMP, 0,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.pcp.id, c.pmp.id, c.upnp.id = PCP, NATPMP, UPnP
				_, seen, _, stop := bubble(t, c.pcp, c.pmp, c.upnp)
				time.Sleep(c.within)
				synctest.Wait()
				events := seen()
				if len(events) != 1 || events[0].Mapping.Protocol != c.want {
					t.Errorf("after %s: %+v", c.within, events)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestReleaseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("router on fire")
		p := &scripted{id: PCP, failFree: failure, grant: func(int, request) (lease, error) {
			return granted("203.0.113.5:443", time.Hour)
		}}
		_, _, _, stop := bubble(t, p)
		synctest.Wait()
		if err := stop(); !errors.Is(err, failure) {
			t.Errorf("got %v", err)
		}
	})
}

// TestPanicInAcquire shows that a fault in this package costs the mapping, not the program.
func TestPanicInAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{id: PCP, grant: func(int, request) (lease, error) { panic("bad") }}
		_, seen, _, stop := bubble(t, p)
		synctest.Wait()
		if events := seen(); len(events) != 1 || !strings.Contains(events[0].Err.Error(), "panic: bad") {
			t.Errorf("got %+v", events)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// pipeRouter answers the n-th datagram (from 1) of a connection that a client under virtual time opens.
func pipeRouter(t *testing.T, answer func(n int, b []byte) []byte) (dialFunc, func() []time.Duration) {
	t.Helper()
	start := time.Now()
	var mu sync.Mutex
	var heard []time.Duration
	dial := func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer func() { _ = far.Close() }()
			buf := make([]byte, 2048)
			for {
				n, err := far.Read(buf)
				if err != nil {
					return
				}
				mu.Lock()
				heard = append(heard, time.Since(start))
				count := len(heard)
				mu.Unlock()
				if reply := answer(count, buf[:n]); reply != nil {
					if _, err := far.Write(reply); err != nil {
						return
					}
				}
			}
		}()
		return near, nil
	}
	return dial, func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(heard)
	}
}

func within(d, center time.Duration) bool { return d >= center*9/10 && d <= center*11/10 }

// TestPCPRetransmission holds the times of RFC 6887 section 8.1.1 and their bound.
func TestPCPRetransmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, heard := pipeRouter(t, func(int, []byte) []byte { return nil })
		p := &pcpClient{dial: dial, local: netip.MustParseAddr("192.168.1.2"), internalPort: 443}
		start := time.Now()
		_, err := p.acquire(t.Context(), request{lifetime: time.Hour})
		if !errors.Is(err, errNoAnswer) {
			t.Errorf("got %v", err)
		}
		at := heard()
		if len(at) != 3 || at[0] != 0 || !within(at[1], 3*time.Second) || !within(at[2]-at[1], 2*at[1]) ||
			!within(time.Since(start)-at[2], 2*(at[2]-at[1])) {
			t.Errorf("transmissions at %v, given up after %s", at, time.Since(start))
		}
	})
}

func TestPCPSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, heard := pipeRouter(t, func(n int, b []byte) []byte {
			if n < 3 {
				return nil
			}
			reply := slices.Concat([]byte{2, 0x81, 0, 0}, b[4:8], []byte{0, 0, 0, 9}, make([]byte, 12), b[24:44])
			return slices.Concat(reply, make([]byte, 10), []byte{0xff, 0xff, 203, 0, 113, 5})
		})
		p := &pcpClient{dial: dial, local: netip.MustParseAddr("192.168.1.2"), internalPort: 443}
		l, err := p.acquire(t.Context(), request{
			external: netip.MustParseAddrPort("0.0.0.0:443"), lifetime: time.Hour,
		})
		if err != nil || l.external.String() != "203.0.113.5:443" || l.lifetime != time.Hour || len(heard()) != 3 {
			t.Errorf("%+v, %v after %v", l, err, heard())
		}
	})
}

// TestNATPMPRetransmission holds the times of RFC 6886 section 3.1 and their bound.
func TestNATPMPRetransmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, heard := pipeRouter(t, func(int, []byte) []byte { return nil })
		p := &natpmpClient{dial: dial, internalPort: 443}
		if err := p.probe(t.Context()); !errors.Is(err, errNoAnswer) {
			t.Errorf("got %v", err)
		}
		want := []time.Duration{0, 250, 750, 1750, 3750, 7750}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(heard(), want) {
			t.Errorf("transmissions at %v, want %v", heard(), want)
		}
	})
}

// TestExchangeCancel ends a waiting exchange at once.
func TestExchangeCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _ := pipeRouter(t, func(int, []byte) []byte { return nil })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := (&natpmpClient{dial: dial}).probe(ctx)
		if !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}
