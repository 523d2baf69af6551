package masque

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func TestCloseIsOrderly(t *testing.T) {
	client, server := runPair(t)
	if _, err := server.Ping(t.Context(), 0); err != nil { // both are running now
		t.Fatal(err)
	}
	if err := client.SendPrivate(CapsuleLane, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if p := next[PrivateCapsule](t, server); string(p.Payload) != "last words" {
		t.Errorf("got %q", p.Payload)
	}
	if err := <-server.result; !errors.Is(err, ErrPeerClosed) {
		t.Errorf("server: %v", err)
	}
	if err := <-client.result; err != nil {
		t.Errorf("client: %v", err)
	}
	for _, r := range []*running{client, server} {
		<-r.Done()
		if err := r.SendPrivate(CapsuleLane, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("capsule after the end: %v", err)
		}
		if err := r.Run(t.Context(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Run after the end: %v", err)
		}
	}
}

func TestCloseWithinHandler(t *testing.T) {
	c, peer := newFakePair(0)
	s := NewSession(c)
	go func() { _, _ = peer.Write(appendCapsule(nil, capsuleAddressAssign, nil)) }()
	if err := s.Run(t.Context(), func(Event) { _ = s.Close() }); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if _, err := io.ReadAll(peer); err != nil {
		t.Errorf("peer saw %v", err)
	}
}

// A peer that does not read cannot keep Close from ending the session.
func TestCloseWithStalledPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newFakePair(0)
		c.out.window = 10
		r := runSession(t, c)
		if err := r.SendPrivate(CapsuleLane, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-r.result; err != nil {
			t.Errorf("Run returned %v", err)
		}
		if d := time.Since(start); d != closeFlush {
			t.Errorf("took %v", d)
		}
		if c.out.reset == nil {
			t.Error("the stream was not reset")
		}
	})
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

func TestPeerResets(t *testing.T) {
	for _, c := range []struct {
		code    http3.ErrCode
		orderly bool
	}{{http3.ErrCodeNoError, true}, {http3.ErrCodeInternalError, false}} {
		r, peer := peerWrites(t, nil)
		peer.CancelWrite(quic.StreamErrorCode(c.code))
		if err := <-r.result; errors.Is(err, ErrPeerClosed) != c.orderly || err == nil {
			t.Errorf("%v: Run returned %v", c.code, err)
		}
		r, peer = peerWrites(t, nil)
		peer.CancelRead(quic.StreamErrorCode(c.code))
		if err := r.AdvertiseRoutes(nil); err != nil {
			t.Fatal(err)
		}
		if err := <-r.result; errors.Is(err, ErrPeerClosed) != c.orderly || err == nil {
			t.Errorf("%v while writing: Run returned %v", c.code, err)
		}
	}
}

func TestAbort(t *testing.T) {
	r, peer := peerWrites(t, nil)
	r.Abort(http3.ErrCodeConnectError, errRunning)
	if err := <-r.result; !errors.Is(err, errRunning) {
		t.Errorf("Run returned %v", err)
	}
	if code := peer.out.waitStopped(); code != quic.StreamErrorCode(http3.ErrCodeConnectError) {
		t.Errorf("stopped with %#x", uint64(code))
	}
	r, _ = peerWrites(t, nil)
	r.Abort(http3.ErrCodeNoError, nil)
	if err := <-r.result; !errors.Is(err, ErrClosed) {
		t.Errorf("without a cause: Run returned %v", err)
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

func TestPing(t *testing.T) {
	client, server := runPair(t)
	for _, r := range []*running{client, server} {
		for _, padding := range []int{0, 1, MaxPingPadding} {
			if rtt, err := r.Ping(t.Context(), padding); err != nil || rtt <= 0 {
				t.Errorf("ping with %d: %v, %v", padding, rtt, err)
			}
		}
		for _, padding := range []int{-1, MaxPingPadding + 1} {
			if _, err := r.Ping(t.Context(), padding); !errors.Is(err, errExcessive) {
				t.Errorf("ping with %d: %v", padding, err)
			}
		}
	}
	if n := server.Stats().EchoRequestsReceived; n != 3 {
		t.Errorf("server saw %d echo requests", n)
	}
	if len(client.events)+len(server.events) != 0 {
		t.Error("echoes became events")
	}
	for _, payload := range [][]byte{nil, {1}, {2, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if err := client.SendPrivate(CapsuleReport, payload); !errors.Is(err, errReservedReport) {
			t.Errorf("report %x: %v", payload, err)
		}
	}
	if err := client.SendPrivate(capsuleAddressAssign, nil); err == nil {
		t.Error("sent a capsule of a standard type as private")
	}
	if err := client.SendPrivate(CapsuleMap, make([]byte, MaxPrivateBytes+1)); !errors.Is(err, errExcessive) {
		t.Errorf("too long: %v", err)
	}
}

// An echo is answered with as much padding as it came with, up to the limit.
func TestEchoPadding(t *testing.T) {
	c, peer := newFakePair(0)
	r := runSession(t, c)
	var stream []byte
	for _, padding := range []int{MaxPingPadding + 1, MaxPingPadding, 0} {
		body, err := AppendPrivate(nil, echo{reportEchoRequest, uint64(padding), padding}.payload())
		if err != nil {
			t.Fatal(err)
		}
		stream = appendCapsule(stream, CapsuleReport, body)
	}
	if _, err := peer.Write(stream); err != nil {
		t.Fatal(err)
	}
	reader := newCapsuleReader(peer)
	for _, padding := range []int{MaxPingPadding, 0} {
		_, body, err := reader.next()
		if err != nil {
			t.Fatal(err)
		}
		payload, err := ParsePrivate(body)
		if err != nil {
			t.Fatal(err)
		}
		want := echo{reportEchoAnswer, uint64(padding), padding}
		if got, ok := parseEcho(payload); !ok || got != want {
			t.Errorf("answered with %+v, want %+v", got, want)
		}
	}
	if n := r.Stats().CapsulesForeign; n != 1 {
		t.Errorf("%d echoes not understood", n)
	}
}

// An answer that comes twice finds nobody waiting the second time.
func TestEchoAnsweredTwice(t *testing.T) {
	c, peer := newFakePair(0)
	r := runSession(t, c)
	pinged := make(chan error, 1)
	go func() {
		_, err := r.Ping(t.Context(), 0)
		pinged <- err
	}()
	_, body, err := newCapsuleReader(peer).next()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := ParsePrivate(body)
	if err != nil {
		t.Fatal(err)
	}
	e, ok := parseEcho(payload)
	if !ok {
		t.Fatalf("report %x", payload)
	}
	answer, err := AppendPrivate(nil, echo{kind: reportEchoAnswer, id: e.id}.payload())
	if err != nil {
		t.Fatal(err)
	}
	both := appendCapsule(appendCapsule(nil, CapsuleReport, answer), CapsuleReport, answer)
	if _, err := peer.Write(appendCapsule(both, capsuleAddressAssign, nil)); err != nil {
		t.Fatal(err)
	}
	next[AddressAssignment](t, r)
	if err := <-pinged; err != nil || r.Stats().EchoAnswersUnexpected != 1 {
		t.Errorf("ping: %v; %d unexpected answers", err, r.Stats().EchoAnswersUnexpected)
	}
}

// A peer that does not know echoes ignores them.
func TestPingUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := newFakePair(0)
		r := runSession(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		results := make(chan error, maxPendingEchoes)
		for range maxPendingEchoes {
			go func() {
				_, err := r.Ping(ctx, 0)
				results <- err
			}()
		}
		synctest.Wait()
		if _, err := r.Ping(ctx, 0); !errors.Is(err, ErrBacklog) {
			t.Errorf("one too many: %v", err)
		}
		answer, err := AppendPrivate(nil, echo{kind: reportEchoAnswer, id: 42}.payload())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := peer.Write(appendCapsule(nil, CapsuleReport, answer)); err != nil {
			t.Fatal(err)
		}
		for range maxPendingEchoes {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("unanswered: %v", err)
			}
		}
		if n := r.Stats().EchoAnswersUnexpected; n != 1 {
			t.Errorf("%d unexpected answers", n)
		}
		if len(r.echoes) != 0 {
			t.Errorf("%d pings still wait", len(r.echoes))
		}
		go func() {
			_, err := r.Ping(t.Context(), 0)
			results <- err
		}()
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-results; !errors.Is(err, ErrClosed) {
			t.Errorf("closed while waiting: %v", err)
		}
	})
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

// TestCloseWhileWriting: whenever Close falls, what was queued and the end of the stream are sent, and Run returns.
func TestCloseWhileWriting(t *testing.T) {
	for range 500 {
		c, s := newFakePair(0)
		client, server := runSession(t, c), runSession(t, s)
		if err := client.AssignAddresses(AddressAssignment{}); err != nil {
			t.Fatal(err)
		}
		<-server.events // the client's Run runs
		if err := client.AssignAddresses(AddressAssignment{}); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-client.result; err != nil {
			t.Fatalf("the client's Run: %v", err)
		}
		if err := <-server.result; !errors.Is(err, ErrPeerClosed) {
			t.Fatalf("the server's Run: %v", err)
		}
		if len(server.events) != 1 {
			t.Fatal("the queued capsule is lost")
		}
	}
}
