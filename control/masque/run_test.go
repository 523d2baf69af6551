package masque

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// running is a session whose Run is running.
type running struct {
	*Session
	events chan Event
	result chan error
}

// runSession runs a new session over str until the test ends.
func runSession(t testing.TB, str Stream) *running {
	t.Helper()
	return runClient(t, NewSession(str))
}

// runClient runs a session until the test ends.
func runClient(t testing.TB, s *Session) *running {
	t.Helper()
	r := &running{Session: s, events: make(chan Event, 100), result: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.result <- s.Run(ctx, func(e Event) { r.events <- e })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// runPair runs both ends of a session in memory.
func runPair(t *testing.T) (client, server *running) {
	t.Helper()
	c, s := newFakePair(0)
	return runSession(t, c), runSession(t, s)
}

// peerWrites runs a session and gives it bytes on its stream.
func peerWrites(t *testing.T, b []byte) (*running, *fakeStream) {
	t.Helper()
	c, peer := newFakePair(0)
	r := runSession(t, c)
	go func() { _, _ = peer.Write(b) }()
	return r, peer
}

// next returns the next event, which has to be an E.
func next[E Event](t *testing.T, r *running) E {
	t.Helper()
	var e Event
	select {
	case e = <-r.events:
	case err := <-r.result:
		r.result <- err
		select {
		case e = <-r.events: // delivered before the end
		default:
			t.Fatalf("session ended: %v", err)
		}
	}
	typed, ok := e.(E)
	if !ok {
		t.Fatalf("event %#v", e)
	}
	return typed
}

func TestCapsulesBothWays(t *testing.T) {
	client, server := runPair(t)
	ids, err := client.RequestAddresses(anyAddress())
	if err != nil {
		t.Fatal(err)
	}
	request := next[AddressRequest](t, server)
	owned := prefixes("100.64.0.2/32", "fd00::2/128")
	if err := server.AssignAddresses(Assign(owned, request)); err != nil {
		t.Fatal(err)
	}
	a := next[AddressAssignment](t, client)
	want := []AssignedAddress{assigned(ids[0], "100.64.0.2/32"), assigned(ids[1], "fd00::2/128")}
	if !slices.Equal(a.Addresses, want) {
		t.Errorf("assigned %v, want %v", a.Addresses, want)
	}
	if err := server.AdvertiseRoutes(prefixes("10.0.1.0/24", "10.0.0.0/24", "::/0")); err != nil {
		t.Fatal(err)
	}
	routes := next[RouteAdvertisement](t, client)
	if len(routes.Ranges) != 2 || routes.Ranges[0] != ipRange("10.0.0.0", "10.0.1.255", 0) {
		t.Errorf("routes %v", routes)
	}
	for _, c := range []CapsuleType{CapsuleLane, CapsuleMap, CapsuleReport} {
		payload := append([]byte{byte(FirstFreeReportKind)}, "offer"...)
		if err := client.SendPrivate(c, payload); err != nil {
			t.Fatal(err)
		}
		if p := next[PrivateCapsule](t, server); p.Type != c || !bytes.Equal(p.Payload, payload) {
			t.Errorf("private capsule %#v", p)
		}
	}
	if st := server.Stats(); st.CapsulesReceived != 4 || st.CapsulesSent != 2 {
		t.Errorf("server counted %+v", st)
	}
}

// RFC 9484 section 4.7.2: request IDs are not reused and not 0.
func TestRFC9484Section4_7_2RequestIDs(t *testing.T) {
	c, _ := newFakePair(0)
	s := NewSession(c)
	seen := map[uint64]bool{0: true}
	for range 5 {
		ids, err := s.RequestAddresses(anyAddress())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			if seen[id] {
				t.Fatalf("request ID %d twice", id)
			}
			seen[id] = true
		}
	}
	if _, err := s.RequestAddresses(prefixes("10.0.0.1/8")); err == nil {
		t.Error("a prefix with host bits was requested")
	}
	if _, err := s.RequestAddresses(nil); err == nil {
		t.Error("nothing was requested")
	}
}

// RFC 9484 sections 4.7.1 and 4.7.3: each capsule is the whole list. However slow
// the receiver, the last one arrives, and in order.
func TestNewestStateIsNeverLost(t *testing.T) {
	c, peer := newFakePair(0)
	c.in.window = 512
	s := NewSession(c)
	const updates = 500
	go func() {
		var b []byte
		for i := range updates {
			last := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			one := RouteAdvertisement{Ranges: []IPRange{{Start: last, End: last}}}
			routes, err := AppendRouteAdvertisement(nil, one)
			if err != nil {
				t.Error(err)
			}
			b = appendCapsule(b, capsuleRouteAdvertisement, routes)
		}
		_, _ = peer.Write(b)
		_ = peer.Close()
	}()
	seen := 0
	err := s.Run(t.Context(), func(e Event) {
		r, ok := e.(RouteAdvertisement)
		if !ok || r.Ranges[0].Start != netip.AddrFrom4([4]byte{10, 0, byte(seen >> 8), byte(seen)}) {
			t.Errorf("event %d is %v", seen, e)
		}
		seen++
	})
	if !errors.Is(err, ErrPeerClosed) || seen != updates {
		t.Errorf("%d events, %v", seen, err)
	}
}

// RFC 9297 section 3.3 and the rules of RFC 9484 section 4.7 that say "MUST abort".
func TestRFC9484Section4_7MustAbort(t *testing.T) {
	capsule := func(t CapsuleType, body ...byte) []byte { return appendCapsule(nil, t, body) }
	tooLong := make([]byte, MaxCapsuleBytes+1)
	tooMany := bytes.Repeat([]byte{0, 4, 1, 2, 3, 4, 32}, MaxAddressEntries+1)
	overlap := []byte{4, 10, 0, 0, 0, 10, 0, 0, 9, 0, 4, 10, 0, 0, 5, 10, 0, 0, 6, 6}
	descending := []byte{4, 10, 0, 0, 9, 10, 0, 0, 9, 0, 4, 10, 0, 0, 5, 10, 0, 0, 6, 0}
	for name, c := range map[string]struct {
		stream []byte
		code   http3.ErrCode
	}{
		"4.7.1 malformed":      {capsule(capsuleAddressAssign, 0, 5, 1, 2, 3, 4, 32), http3.ErrCodeMessageError},
		"4.7.1 too many":       {capsule(capsuleAddressAssign, tooMany...), http3.ErrCodeExcessiveLoad},
		"4.7.2 no entry":       {capsule(capsuleAddressRequest), http3.ErrCodeMessageError},
		"4.7.2 request id 0":   {capsule(capsuleAddressRequest, 0, 4, 0, 0, 0, 0, 32), http3.ErrCodeMessageError},
		"4.7.3 order":          {capsule(capsuleRouteAdvertisement, descending...), http3.ErrCodeMessageError},
		"4.7.3 overlap of all": {capsule(capsuleRouteAdvertisement, overlap...), http3.ErrCodeMessageError},
		"too long":             {capsule(CapsuleMap, tooLong...), http3.ErrCodeExcessiveLoad},
	} {
		r, peer := peerWrites(t, c.stream)
		err := <-r.result
		if err == nil || errors.Is(err, ErrPeerClosed) {
			t.Errorf("%s: Run returned %v", name, err)
		}
		if code := peer.out.waitStopped(); code != quic.StreamErrorCode(c.code) {
			t.Errorf("%s: reading stopped with %v, want %v", name, http3.ErrCode(code), c.code)
		}
		var reset *http3.Error
		if _, err := peer.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.ErrorCode != c.code {
			t.Errorf("%s: writing ended with %v, want %v", name, err, c.code)
		}
		if err := r.AdvertiseRoutes(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: capsule after the end: %v", name, err)
		}
	}
}

func TestStreamEndsInsideCapsule(t *testing.T) {
	c, peer := newFakePair(0)
	if _, err := peer.Write(appendCapsule(nil, CapsuleMap, make([]byte, 100))[:50]); err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	r := runSession(t, c)
	if err := <-r.result; !errors.Is(err, errMalformed) {
		t.Errorf("Run returned %v", err)
	}
}

// RFC 9297 section 3.2: unknown capsules are skipped.
func TestRFC9297Section3_2UnknownSkipped(t *testing.T) {
	other, err := AppendPrivate(nil, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	other[4] = PrivateVersion + 1
	strangeReport, err := AppendPrivate(nil, []byte{5, 1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	b = appendCapsule(b, 0x29*1000+0x17, bytes.Repeat([]byte{1}, 1000)) // reserved to exercise this
	b = appendCapsule(b, capsuleDatagram, append([]byte{0}, packetOf(4, 20)...))
	b = appendCapsule(b, CapsuleLane, other)
	b = appendCapsule(b, CapsuleMap, []byte("foreign"))
	b = appendCapsule(b, CapsuleReport, strangeReport)
	b = appendCapsule(b, capsuleAddressAssign, mustHex(t, "0004c000020b21"+"0004c000020b20"))
	r, _ := peerWrites(t, b)
	if a := next[AddressAssignment](t, r); !slices.Equal(a.Prefixes(), prefixes("192.0.2.11/32")) {
		t.Errorf("assigned %v", a)
	}
	st := r.Stats()
	if st.CapsulesUnknown != 1 || st.CapsulesDatagram != 1 || st.CapsulesForeign != 3 ||
		st.AddressesMalformed != 1 {
		t.Errorf("counted %+v", st)
	}
}

func TestBacklog(t *testing.T) {
	c, _ := newFakePair(0)
	c.out.window = 0
	r := runSession(t, c)
	for range 2*maxQueuedCapsules + 1 {
		if err := r.AdvertiseRoutes(nil); err != nil {
			if !errors.Is(err, ErrBacklog) || r.Stats().CapsulesBacklogged != 1 {
				t.Errorf("%v, counted %d", err, r.Stats().CapsulesBacklogged)
			}
			return
		}
	}
	t.Error("the queue has no end")
}

func TestContextEndsRun(t *testing.T) {
	c, peer := newFakePair(0)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errRunning)
	if err := NewSession(c).Run(ctx, nil); !errors.Is(err, errRunning) {
		t.Errorf("Run returned %v", err)
	}
	if code := peer.out.waitStopped(); code != quic.StreamErrorCode(http3.ErrCodeRequestCanceled) {
		t.Errorf("stopped with %#x", uint64(code))
	}
}

func TestRunOnlyOnce(t *testing.T) {
	client, server := runPair(t)
	if _, err := client.Ping(t.Context(), 0); err != nil { // both are running now
		t.Fatal(err)
	}
	if err := server.Run(t.Context(), nil); !errors.Is(err, errRunning) {
		t.Errorf("second Run: %v", err)
	}
}

func TestPanicInHandlerEndsTheSession(t *testing.T) {
	c, peer := newFakePair(0)
	go func() { _, _ = peer.Write(appendCapsule(nil, capsuleAddressAssign, nil)) }()
	err := NewSession(c).Run(t.Context(), func(Event) { panic("boom") })
	if err == nil || errors.Is(err, ErrPeerClosed) || !strings.Contains(err.Error(), "boom") {
		t.Errorf("Run returned %v", err)
	}
	if code := peer.out.waitStopped(); code != quic.StreamErrorCode(http3.ErrCodeInternalError) {
		t.Errorf("stopped with %#x", uint64(code))
	}
}

func FuzzRun(f *testing.F) {
	f.Add(appendCapsule(nil, capsuleAddressAssign, []byte{0, 4, 10, 0, 0, 1, 32}))
	f.Add(appendCapsule(nil, capsuleAddressRequest, []byte{1, 4, 0, 0, 0, 0, 32}))
	f.Add(appendCapsule(appendCapsule(nil, 77, []byte("x")), capsuleRouteAdvertisement, nil))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		c, peer := newFakePair(0)
		s := NewSession(c)
		go func() {
			_, _ = peer.Write(stream)
			_ = peer.Close()
		}()
		err := s.Run(t.Context(), func(e Event) {
			if r, ok := e.(AddressRequest); ok {
				if err := s.AssignAddresses(Assign(nil, r)); err != nil && !errors.Is(err, ErrBacklog) {
					t.Errorf("answer %v: %v", r, err)
				}
			}
		})
		if !errors.Is(err, ErrPeerClosed) && !errors.Is(err, errMalformed) && !errors.Is(err, errExcessive) {
			t.Fatalf("Run returned %v", err)
		}
	})
}
