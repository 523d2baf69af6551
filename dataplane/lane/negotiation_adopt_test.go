package lane

import (
	"errors"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// TestAdoption breaks the session while a ratchet's answer is under way: the server has an epoch more.
func TestAdoption(t *testing.T) {
	p := newEnds(t)
	out := exchange(t, p.server, p.ss, p.request(), p.now)
	lost := message(t, out, KindRatchetAnswer)
	wantEvents(t, p.client.SessionEnded(p.cs, false, p.now))
	cs, ss := sessionPair("two", keyschedule.Client)
	resumed := must(p.client.Resume(cs, p.now))
	if _, err := p.client.Resume(cs, p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("resumed twice: %v", err)
	}
	if _, err := p.client.Step(p.cs, lost, p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("answer of the old session: %v", err)
	}
	out = exchange(t, p.server, ss, message(t, resumed, KindAdoptRequest), p.now)
	wantEvents(t, out, EventAdopted, EventWipe, EventSeal)
	if event(t, out, EventAdopted).Epoch != 0 || event(t, out, EventWipe).Epoch != 1 {
		t.Errorf("events %+v", out.Events)
	}
	out = exchange(t, p.client, cs, message(t, out, KindAdoptAnswer), p.now)
	wantEvents(t, out, EventAdopted, EventSeal)
	out = exchange(t, p.server, ss, message(t, out, KindRatchetRequest), p.now) // at once
	out = exchange(t, p.client, cs, message(t, out, KindRatchetAnswer), p.now)
	if event(t, out, EventSeal).Epoch != 1 {
		t.Error("no ratchet after the adoption")
	}
	wantEvents(t, p.server.SessionEnded(p.ss, true, p.now)) // the old session's end comes late
}

// TestFailedAdoption proves with the wrong exporter value: the lane stays until it is replaced.
func TestFailedAdoption(t *testing.T) {
	p := newEnds(t)
	p.client.SessionEnded(p.cs, false, p.now)
	cs, _ := sessionPair("two", keyschedule.Client)
	_, ss := sessionPair("another", keyschedule.Client)
	out := must(p.client.Resume(cs, p.now))
	out = exchange(t, p.server, ss, message(t, out, KindAdoptRequest), p.now)
	wantEvents(t, out, EventAdoptionFailed)
	out = exchange(t, p.client, cs, message(t, out, KindAdoptAnswer), p.now)
	wantEvents(t, out, EventAdoptionFailed)
	if _, err := p.client.Resume(cs, p.now); !errors.Is(err, ErrIgnored) || !p.client.Live() || p.client.Bound() != nil {
		t.Errorf("after a failed adoption: %v", err)
	}
	wantEvents(t, p.client.Drop(ReasonReplaced, p.now), EventClosed)
}

func TestAdoptionOfNothing(t *testing.T) {
	p := newEnds(t)
	p.client.SessionEnded(p.cs, false, p.now)
	cs, ss := sessionPair("two", keyschedule.Client)
	request := message(t, must(p.client.Resume(cs, p.now)), KindAdoptRequest)
	answer := must(Refuse(request, ReasonPolicy))
	wantEvents(t, exchange(t, p.client, cs, answer, p.now), EventAdoptionFailed, EventClosed)
	p.server.Drop(ReasonReset, p.now)
	out, err := p.server.Step(ss, request, p.now)
	if !errors.Is(err, ErrIgnored) || must(Parse(message(t, out, KindAdoptAnswer))).(*AdoptAnswer).Status != AdoptUnknown {
		t.Errorf("%v", err)
	}
}

func TestAdoptionUnanswered(t *testing.T) {
	p := newEnds(t)
	p.client.SessionEnded(p.cs, false, p.now)
	cs, _ := sessionPair("two", keyschedule.Client)
	must(p.client.Resume(cs, p.now))
	wantEvents(t, p.client.Tick(p.now+int64(AnswerWithin)-1))
	wantEvents(t, p.client.Tick(p.now+int64(AnswerWithin)), EventAdoptionFailed)
}

// TestOvertakenAdoption delivers the requests of two sessions in the wrong order.
func TestOvertakenAdoption(t *testing.T) {
	p := newEnds(t)
	p.client.SessionEnded(p.cs, false, p.now)
	cs, ss := sessionPair("two", keyschedule.Client)
	first := must(p.client.Resume(cs, p.now))
	p.client.SessionEnded(cs, false, p.now)
	cs2, ss2 := sessionPair("three", keyschedule.Client)
	second := must(p.client.Resume(cs2, p.now))
	exchange(t, p.server, ss2, message(t, second, KindAdoptRequest), p.now)
	out := exchange(t, p.server, ss, message(t, first, KindAdoptRequest), p.now)
	wantEvents(t, out)
	if p.server.Bound() != ss2 {
		t.Error("the older session has the lane")
	}
	if a := must(Parse(message(t, out, KindAdoptAnswer))).(*AdoptAnswer); a.Status != AdoptStale || a.Attempt != 2 {
		t.Errorf("%+v", a)
	}
}

// TestBothAdopt lets each side dial the other and ask at the same time.
func TestBothAdopt(t *testing.T) {
	p := newEnds(t)
	p.client.SessionEnded(p.cs, false, p.now)
	p.server.SessionEnded(p.ss, false, p.now)
	c1, s1 := sessionPair("by client", keyschedule.Client)
	c2, s2 := sessionPair("by server", keyschedule.Server)
	r1 := must(p.client.Resume(c1, p.now))
	r2 := must(p.server.Resume(s2, p.now))
	a1 := exchange(t, p.server, s1, message(t, r1, KindAdoptRequest), p.now)
	a2 := exchange(t, p.client, c2, message(t, r2, KindAdoptRequest), p.now)
	if _, err := p.client.Step(c1, message(t, a1, KindAdoptAnswer), p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("answer over the losing session: %v", err)
	}
	out := exchange(t, p.server, s2, message(t, a2, KindAdoptAnswer), p.now)
	if p.client.Bound() != c2 || p.server.Bound() != s2 {
		t.Fatal("bound to different sessions")
	}
	out = exchange(t, p.client, c2, message(t, out, KindRatchetRequest), p.now) // the lane's server begins it now
	out = exchange(t, p.server, s2, message(t, out, KindRatchetAnswer), p.now)
	wantEvents(t, out, EventInstall, EventSeal, EventPing)
	wantEvents(t, p.client.Opened(1, p.now), EventSeal)
}

func TestStaleAnswerIsRetried(t *testing.T) {
	p := newEnds(t)
	p.client.SessionEnded(p.cs, false, p.now)
	cs, _ := sessionPair("two", keyschedule.Client)
	must(p.client.Resume(cs, p.now))
	for attempt := uint32(7); ; attempt += 3 {
		answer := &AdoptAnswer{Lane: p.client.id, Status: AdoptStale, Attempt: attempt}
		out := exchange(t, p.client, cs, answer.Append(nil), p.now)
		if len(out.Messages) == 0 {
			wantEvents(t, out, EventAdoptionFailed)
			break
		}
		if m := must(Parse(message(t, out, KindAdoptRequest))).(*AdoptRequest); m.Attempt != attempt+1 || attempt > 20 {
			t.Fatalf("attempt %d after %d", m.Attempt, attempt)
		}
	}
}

// TestAdoptionProlongsNothing adopts and loses the session again before the ratchet.
func TestAdoptionProlongsNothing(t *testing.T) {
	p := newEnds(t)
	start := p.now
	for _, at := range []int64{60 * second, 120 * second} {
		p.now = start + at
		p.client.SessionEnded(p.client.Bound(), false, p.now)
		p.server.SessionEnded(p.server.Bound(), false, p.now)
		cs, ss := sessionPair("again", keyschedule.Client)
		out := must(p.client.Resume(cs, p.now))
		out = exchange(t, p.server, ss, message(t, out, KindAdoptRequest), p.now)
		exchange(t, p.client, cs, message(t, out, KindAdoptAnswer), p.now)
	}
	for _, n := range []*Negotiation{p.client, p.server} {
		n.SessionEnded(n.Bound(), false, p.now)
		wantEvents(t, n.Tick(start+int64(SealFor)-1))
		wantEvents(t, n.Tick(start+int64(SealFor)), EventSealStop)
		cs, _ := sessionPair("late", keyschedule.Client)
		if _, err := n.Resume(cs, start+int64(SealFor)); !errors.Is(err, ErrIgnored) {
			t.Errorf("an expired lane is resumed: %v", err)
		}
	}
}
