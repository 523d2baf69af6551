package lane

import (
	"errors"
	"math"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

func TestRatchetMessages(t *testing.T) {
	p := newEnds(t)
	if out := p.client.Tick(p.now + int64(RatchetAfter) - 1); len(out.Messages) != 0 {
		t.Fatal("a ratchet before its time")
	}
	request := p.request()
	out := exchange(t, p.server, p.ss, request, p.now)
	wantEvents(t, out, EventInstall)
	answer := message(t, out, KindRatchetAnswer)

	again := exchange(t, p.server, p.ss, request, p.now)
	wantEvents(t, again)
	if got := message(t, again, KindRatchetAnswer); string(got) != string(answer) {
		t.Error("a repeated request has another answer")
	}
	wantEvents(t, exchange(t, p.client, p.cs, answer, p.now), EventInstall, EventSeal, EventPing)
	if _, err := p.client.Step(p.cs, answer, p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("repeated answer: %v", err)
	}
	wantEvents(t, p.client.Tick(p.now+int64(firstPingAfter)), EventPing)
	wantEvents(t, p.server.Opened(1, p.now), EventSeal)
	wantEvents(t, p.server.Opened(1, p.now))

	// The client keeps epoch 0 until it knows that the server seals with 1, and 3 s more.
	for _, e := range p.client.Tick(p.now + 30*second).Events {
		if e.Kind != EventPing {
			t.Fatalf("%v while the server may still seal with epoch 0", e.Kind)
		}
	}
	p.now += 30 * second
	p.client.Opened(1, p.now)
	wantEvents(t, p.client.Tick(p.now+int64(KeepFor)-1))
	if out = p.client.Tick(p.now + int64(KeepFor)); event(t, out, EventWipe).Epoch != 0 {
		t.Error("wiped another epoch than 0")
	}
	out = p.server.Tick(p.now)
	if event(t, out, EventWipe).Epoch != 0 {
		t.Error("wiped another epoch than 0")
	}
}

func TestRatchetByPackets(t *testing.T) {
	for name, progress := range map[string]func(n *Negotiation, packets uint64, now int64) Output{
		"sealed": func(n *Negotiation, packets uint64, now int64) Output { return n.Progress(packets, 0, now) },
		"opened": func(n *Negotiation, packets uint64, now int64) Output { return n.Progress(0, packets, now) },
	} {
		p := newEnds(t)
		const half = aead.MaxPackets / 2
		if out := progress(p.client, half-1, p.now); len(out.Messages) != 0 {
			t.Errorf("%s: a ratchet before its time", name)
		}
		message(t, progress(p.client, half, p.now), KindRatchetRequest)
		if out := progress(p.server, half, p.now); len(out.Messages) != 0 {
			t.Errorf("%s: the server begins a ratchet", name)
		}
	}
}

func TestLongPacketsRatchetEarlier(t *testing.T) {
	config := testConfig(keyed(2))
	config.MaxPacketBytes = 9000
	server := must(NewServer(config))
	offer := must(must(NewClient(testConfig(keyed(1)))).Start(&Session{Role: keyschedule.Client}, 0))
	out := exchange(t, server, &Session{Role: keyschedule.Server, Export: refExport("x")}, message(t, offer, KindOffer), 0)
	if limit := event(t, out, EventReady).Params.PacketLimit; limit != aead.MaxLongPackets {
		t.Errorf("limit %d", limit)
	}
}

// TestSilenceWithoutRatchet lets the session break and nothing follow.
func TestSilenceWithoutRatchet(t *testing.T) {
	p := newEnds(t)
	start := p.now
	for _, n := range []*Negotiation{p.client, p.server} {
		session := n.Bound()
		wantEvents(t, n.SessionEnded(session, false, start+100*second))
		wantEvents(t, n.Tick(start+int64(SealFor)-1))
		wantEvents(t, n.Tick(start+int64(SealFor)), EventSealStop)
		wantEvents(t, n.Tick(start+int64(SealFor+KeepFor)-1))
		if e := event(t, n.Tick(start+int64(SealFor+KeepFor)), EventClosed); e.Reason != ReasonExpired {
			t.Errorf("closed for %v", e.Reason)
		}
		if n.NextTick() != math.MaxInt64 || !n.Closed() {
			t.Error("a closed lane goes on")
		}
	}
}

// TestSecondRequestForOneEpoch asks twice for the same epoch with different keys.
func TestSecondRequestForOneEpoch(t *testing.T) {
	p := newEnds(t)
	request := p.request()
	exchange(t, p.server, p.ss, request, p.now)
	m := must(Parse(request)).(*RatchetRequest)
	m.PublicKey[0] ^= 1
	if _, err := p.server.Step(p.ss, m.Append(nil), p.now); !errors.Is(err, ErrViolation) {
		t.Errorf("taken: %v", err)
	}
}

// TestRequestConfirmsEarlierEpoch lets a request overtake the dataplane's word that the epoch before is in use.
func TestRequestConfirmsEarlierEpoch(t *testing.T) {
	p := newEnds(t)
	out := exchange(t, p.server, p.ss, p.request(), p.now)
	exchange(t, p.client, p.cs, message(t, out, KindRatchetAnswer), p.now)
	p.client.Opened(1, p.now)
	p.now += int64(KeepFor)
	out = exchange(t, p.server, p.ss, message(t, p.client.Progress(aead.MaxPackets, 0, p.now), KindRatchetRequest), p.now)
	wantEvents(t, out, EventSeal, EventInstall)
	if s, i := event(t, out, EventSeal).Epoch, event(t, out, EventInstall).Epoch; s != 1 || i != 2 {
		t.Errorf("seals with %d, opens %d", s, i)
	}
}

func TestTooManyRatchets(t *testing.T) {
	p := newEnds(t)
	for epoch := range uint32(ratchetBurst + 1) {
		m := RatchetRequest{Lane: p.server.id, Epoch: epoch + 1}
		issued := must(Parse(someRequest(p.client))).(*RatchetRequest)
		m.Renewal, m.PublicKey = issued.Renewal, issued.PublicKey
		out, err := p.server.Step(p.ss, m.Append(nil), p.now)
		if epoch < ratchetBurst {
			if err != nil {
				t.Fatalf("ratchet %d: %v", epoch, err)
			}
			p.server.Opened(epoch+1, p.now)
			continue
		}
		if !errors.Is(err, ErrViolation) || event(t, out, EventClosed).Reason != ReasonExcessive {
			t.Errorf("ratchet %d: %v", epoch, err)
		}
	}
}

// someRequest makes a valid request of the client, out of its time.
func someRequest(n *Negotiation) []byte {
	n.abortRatchet()
	n.startRatchet()
	out := n.take()
	return out.Messages[len(out.Messages)-1].Payload
}

// TestSlowRatchetCountsFromItsRequest delays an answer: the client seals no longer than 180 s from its request, and
// opens for as long as the server, which counts from its answer, may seal.
func TestSlowRatchetCountsFromItsRequest(t *testing.T) {
	p := newEnds(t)
	request := p.request()
	asked := p.now
	answered := asked + 20*second
	out := exchange(t, p.server, p.ss, request, answered)
	arrived := answered + 20*second
	exchange(t, p.client, p.cs, message(t, out, KindRatchetAnswer), arrived)
	p.server.Opened(1, arrived)
	p.client.Opened(1, arrived)
	p.client.SessionEnded(p.cs, false, arrived)
	p.server.SessionEnded(p.ss, false, arrived)
	p.client.Tick(arrived + int64(KeepFor))
	p.server.Tick(arrived + int64(KeepFor))
	wantEvents(t, p.client.Tick(asked+int64(SealFor)-1))
	wantEvents(t, p.client.Tick(asked+int64(SealFor)), EventSealStop)
	wantEvents(t, p.server.Tick(answered+int64(SealFor)-1))
	wantEvents(t, p.server.Tick(answered+int64(SealFor)), EventSealStop)
	wantEvents(t, p.client.Tick(arrived+int64(SealFor+KeepFor)-1))
	wantEvents(t, p.client.Tick(arrived+int64(SealFor+KeepFor)), EventClosed)
}
