package masque

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

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
