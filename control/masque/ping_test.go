package masque

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

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
