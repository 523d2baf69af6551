package lane

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// issuer hands out connection IDs of one node.
type issuer struct {
	node byte
	next uint32
}

func keyed(node byte) *issuer { return &issuer{node: node} }

func (i *issuer) issue() (ConnectionID, ResetToken) {
	i.next++
	var id ConnectionID
	id[1] = i.node
	binary.BigEndian.PutUint32(id[4:], i.next)
	return id, ResetToken(append(id[:], id[:]...))
}

// testConfig is that of node 1 or 2, each the other's peer.
func testConfig(i *issuer) Config {
	return Config{
		Local: NodeID{i.node}, Peer: NodeID{3 - i.node}, MaxPacketBytes: 1500,
		Suites: []aead.Suite{aead.AES256GCM, aead.ChaCha20Poly1305}, Contexts: []ContextKind{ContextPartialChecksum},
		Issue: i.issue,
	}
}

func exchange(t *testing.T, n *Negotiation, from *Session, payload []byte, now int64) Output {
	t.Helper()
	out, err := n.Step(from, payload, now)
	if err != nil {
		t.Fatalf("step %v: %v", Kind(payload[0]), err)
	}
	return out
}

func message(t *testing.T, out Output, kind Kind) []byte {
	t.Helper()
	for _, m := range out.Messages {
		if Kind(m.Payload[0]) == kind {
			return m.Payload
		}
	}
	t.Fatalf("no %v in %d messages", kind, len(out.Messages))
	return nil
}

func kinds(out Output) []EventKind {
	var list []EventKind
	for _, e := range out.Events {
		list = append(list, e.Kind)
	}
	return list
}

func event(t *testing.T, out Output, kind EventKind) Event {
	t.Helper()
	for _, e := range out.Events {
		if e.Kind == kind {
			return e
		}
	}
	t.Fatalf("no %v among %v", kind, kinds(out))
	return Event{}
}

func wantEvents(t *testing.T, out Output, want ...EventKind) {
	t.Helper()
	if got := kinds(out); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
}

// ends is two machines with a session between them. Node 1 is the lane's client.
type ends struct {
	t              *testing.T
	client, server *Negotiation
	cs, ss         *Session
	now            int64
}

func sessionPair(name string, client keyschedule.Role) (atClient, atServer *Session) {
	return &Session{Role: client, Export: refExport(name)}, &Session{Role: client.Peer(), Export: refExport(name)}
}

// newEnds makes a lane that both seal on.
func newEnds(t *testing.T) *ends {
	t.Helper()
	p := &ends{t: t, client: must(NewClient(testConfig(keyed(1)))), server: must(NewServer(testConfig(keyed(2)))), now: second}
	p.cs, p.ss = sessionPair("one", keyschedule.Client)
	out, err := p.client.Start(p.cs, p.now)
	if err != nil {
		t.Fatal(err)
	}
	wantEvents(t, out, EventIssue, EventIssue, EventIssue, EventIssue)
	out = exchange(t, p.server, p.ss, message(t, out, KindOffer), p.now)
	wantEvents(t, out, EventIssue, EventIssue, EventIssue, EventIssue, EventReady, EventInstall)
	out = exchange(t, p.client, p.cs, message(t, out, KindAccept), p.now)
	wantEvents(t, out, EventReady, EventInstall, EventSeal, EventPing)
	wantEvents(t, p.server.Opened(0, p.now), EventSeal, EventReport)
	wantEvents(t, p.client.Opened(0, p.now))
	return p
}

// request lets the client begin a ratchet at 120 s.
func (p *ends) request() []byte {
	p.t.Helper()
	p.now += int64(RatchetAfter)
	return message(p.t, p.client.Tick(p.now), KindRatchetRequest)
}

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
	wantEvents(t, p.server.Opened(1, p.now), EventSeal, EventReport)
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

func TestEndsOfSessions(t *testing.T) {
	p := newEnds(t)
	other, _ := sessionPair("other", keyschedule.Client)
	wantEvents(t, p.client.SessionEnded(other, true, p.now))
	if e := event(t, p.client.SessionEnded(p.cs, true, p.now), EventClosed); e.Reason != ReasonSessionEnded {
		t.Errorf("closed for %v", e.Reason)
	}
	if out, err := p.client.Step(p.cs, (&Close{Lane: p.client.id}).Append(nil), p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("%v, %v", out, err)
	}
	out := p.server.Close(ReasonRevoked, p.now)
	if m := must(Parse(message(t, out, KindClose))).(*Close); m.Reason != ReasonRevoked {
		t.Errorf("close for %v", m.Reason)
	}
	wantEvents(t, p.server.Close(ReasonDown, p.now))
}

func TestCloseFromThePeer(t *testing.T) {
	p := newEnds(t)
	id, _ := p.client.ID()
	if _, err := p.client.Step(p.cs, (&Close{Lane: ID{1}, Reason: ReasonDown}).Append(nil), p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("close of another lane: %v", err)
	}
	stale, _ := sessionPair("stale", keyschedule.Client)
	if _, err := p.client.Step(stale, (&Close{Lane: id, Reason: ReasonDown}).Append(nil), p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("close over another session: %v", err)
	}
	out := exchange(t, p.client, p.cs, (&Close{Lane: id, Reason: ReasonDown}).Append(nil), p.now)
	if event(t, out, EventClosed).Reason != ReasonDown || len(out.Messages) != 0 {
		t.Errorf("%+v", out)
	}
}

// TestViolations has one row for each message that a peer may not send in that state; each closes the lane.
func TestViolations(t *testing.T) {
	request := func(edit func(m *RatchetRequest)) func(p *ends) ([]byte, bool) {
		return func(p *ends) ([]byte, bool) {
			m := must(Parse(p.request())).(*RatchetRequest)
			edit(m)
			return m.Append(nil), true
		}
	}
	answer := func(edit func(m *RatchetAnswer)) func(p *ends) ([]byte, bool) {
		return func(p *ends) ([]byte, bool) {
			out := exchange(p.t, p.server, p.ss, p.request(), p.now)
			m := must(Parse(message(p.t, out, KindRatchetAnswer))).(*RatchetAnswer)
			edit(m)
			return m.Append(nil), false
		}
	}
	for name, craft := range map[string]func(p *ends) (payload []byte, toServer bool){
		"epoch left out":      request(func(m *RatchetRequest) { m.Epoch = 2 }),
		"bad public key":      request(func(m *RatchetRequest) { clearTo(m.PublicKey[:1184], 0xff) }),
		"low-order X25519":    request(func(m *RatchetRequest) { clearTo(m.PublicKey[1184:], 0) }),
		"retired unissued":    request(func(m *RatchetRequest) { m.Renewal.Retired = []uint32{4} }),
		"ID changed":          request(func(m *RatchetRequest) { m.Renewal.Issued[0].ID[5] ^= 1 }),
		"token changed":       request(func(m *RatchetRequest) { m.Renewal.Issued[0].Token[5] ^= 1 }),
		"ID withdrawn":        request(func(m *RatchetRequest) { m.Renewal.Issued = m.Renewal.Issued[1:] }),
		"ID under new number": request(func(m *RatchetRequest) { m.Renewal.Issued[3].Sequence = 4 }),
		"answer withdraws":    answer(func(m *RatchetAnswer) { m.Renewal.Issued = m.Renewal.Issued[1:] }),
		"answer low-order":    answer(func(m *RatchetAnswer) { clearTo(m.Ciphertext[1088:], 0) }),
		"answer retires":      answer(func(m *RatchetAnswer) { m.Renewal.Retired = []uint32{9} }),
		"request to client": func(p *ends) ([]byte, bool) {
			return (&RatchetRequest{Lane: p.client.id, Epoch: 1, Renewal: testRenewal()}).Append(nil), false
		},
		"malformed": func(p *ends) ([]byte, bool) { return append(p.request(), 0), true },
	} {
		t.Run(name, func(t *testing.T) {
			p := newEnds(t)
			payload, toServer := craft(&ends{t, p.client, p.server, p.cs, p.ss, p.now})
			n, s := p.client, p.cs
			if toServer {
				n, s = p.server, p.ss
			}
			out, err := n.Step(s, payload, p.now)
			if !errors.Is(err, ErrViolation) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("taken: %v", err)
			}
			if e := event(t, out, EventClosed); e.Reason != ReasonProtocol {
				t.Errorf("closed for %v", e.Reason)
			}
			message(t, out, KindClose)
		})
	}
}

func clearTo(b []byte, v byte) {
	for i := range b {
		b[i] = v
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
	wantEvents(t, out, EventSeal, EventReport, EventInstall)
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

func TestConnectionIDsMove(t *testing.T) {
	p := newEnds(t)
	first := p.client.ids.peer[0].IssuedID
	for range ConnectionIDs - 1 {
		id, ok := p.client.UsePeerID()
		if !ok || id == first {
			t.Fatal("no new connection ID")
		}
	}
	if _, ok := p.client.UsePeerID(); ok {
		t.Error("a connection ID is used for two paths")
	}
	if got := len(p.client.AppendPeerTokens(nil)); got != ConnectionIDs {
		t.Errorf("%d tokens", got)
	}
	if !p.client.RetirePeerID(0) || p.client.RetirePeerID(0) || p.client.RetirePeerID(9) {
		t.Error("retired wrongly")
	}
	if tokens := p.client.AppendPeerTokens(nil); len(tokens) != 3 || slices.Contains(tokens, first.Token) {
		t.Error("the token of a retired connection ID is still taken")
	}
	out := exchange(t, p.server, p.ss, p.request(), p.now)
	wantEvents(t, out, EventIssue, EventInstall)
	fresh := event(t, out, EventIssue).ID
	wantEvents(t, p.server.Tick(p.now+int64(KeepFor)-1))
	if e := event(t, p.server.Tick(p.now+int64(KeepFor)), EventRetire); e.ID != first.ID {
		t.Errorf("retired %v", e.ID)
	}
	exchange(t, p.client, p.cs, message(t, out, KindRatchetAnswer), p.now)
	if id, ok := p.client.UsePeerID(); !ok || id.ID != fresh || id.Sequence != ConnectionIDs {
		t.Errorf("refilled with %+v", id)
	}
}

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
	wantEvents(t, p.client.Opened(1, p.now), EventSeal, EventReport)
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

func TestOfferWithoutCommonSuite(t *testing.T) {
	config := testConfig(keyed(1))
	config.Suites = []aead.Suite{aead.AES128GCM}
	client, server := must(NewClient(config)), must(NewServer(testConfig(keyed(2))))
	cs, ss := sessionPair("one", keyschedule.Client)
	out := must(client.Start(cs, 0))
	out = exchange(t, server, ss, message(t, out, KindOffer), 0)
	if event(t, out, EventClosed).Reason != ReasonSuite {
		t.Error("closed for another reason")
	}
	out = exchange(t, client, cs, message(t, out, KindRefusal), 0)
	if event(t, out, EventClosed).Reason != ReasonSuite {
		t.Error("closed for another reason")
	}
}

func TestOfferTwiceAndUnanswered(t *testing.T) {
	client, server := must(NewClient(testConfig(keyed(1)))), must(NewServer(testConfig(keyed(2))))
	cs, ss := sessionPair("one", keyschedule.Client)
	offer := message(t, must(client.Start(cs, 0)), KindOffer)
	if _, err := client.Start(cs, 0); !errors.Is(err, ErrIgnored) {
		t.Errorf("started twice: %v", err)
	}
	a := message(t, exchange(t, server, ss, offer, 0), KindAccept)
	again := exchange(t, server, ss, offer, 0)
	if b := message(t, again, KindAccept); string(a) != string(b) || len(again.Events) != 0 {
		t.Error("a repeated offer makes another lane")
	}
	wantEvents(t, client.Tick(int64(AnswerWithin)), EventClosed)
	if _, err := client.Step(cs, a, int64(AnswerWithin)); !errors.Is(err, ErrIgnored) {
		t.Errorf("late accept: %v", err)
	}
}

func TestAcceptOfWhatWasNotOffered(t *testing.T) {
	client, server := must(NewClient(testConfig(keyed(1)))), must(NewServer(testConfig(keyed(2))))
	cs, ss := sessionPair("one", keyschedule.Client)
	offer := message(t, must(client.Start(cs, 0)), KindOffer)
	m := must(Parse(message(t, exchange(t, server, ss, offer, 0), KindAccept))).(*Accept)
	other := *m
	other.Offer[0] ^= 1
	if _, err := client.Step(cs, other.Append(nil), 0); !errors.Is(err, ErrIgnored) {
		t.Errorf("accept of another offer: %v", err)
	}
	m.Suite = aead.AES128GCM
	if _, err := client.Step(cs, m.Append(nil), 0); !errors.Is(err, ErrViolation) || !client.Closed() {
		t.Errorf("suite that was not offered: %v", err)
	}
}

// TestTranscriptBinds changes what both must agree on and sees different lanes.
func TestTranscriptBinds(t *testing.T) {
	n := must(NewClient(testConfig(keyed(1))))
	base := n.transcript([]byte("ab"), []byte("c"))
	if n.transcript([]byte("a"), []byte("bc")) == base {
		t.Error("the border between offer and accept is not bound")
	}
	config := testConfig(keyed(1))
	config.Peer[31] = 1
	if must(NewClient(config)).transcript([]byte("ab"), []byte("c")) == base {
		t.Error("the peer is not bound")
	}
	if must(NewServer(testConfig(keyed(1)))).transcript([]byte("ab"), []byte("c")) == base {
		t.Error("the roles are not bound")
	}
	if must(NewServer(testConfig(keyed(2)))).transcript([]byte("ab"), []byte("c")) != base {
		t.Error("the two ends differ")
	}
}

func TestBadConfig(t *testing.T) {
	for name, edit := range map[string]func(c *Config){
		"number":       func(c *Config) { c.Number = MaxLaneNumber + 1 },
		"stream":       func(c *Config) { c.QuarterStreamID = MaxQuarterStreamID + 1 },
		"packet":       func(c *Config) { c.MaxPacketBytes = 0 },
		"no suite":     func(c *Config) { c.Suites = nil },
		"suite twice":  func(c *Config) { c.Suites = []aead.Suite{1, 1} },
		"bad suite":    func(c *Config) { c.Suites = []aead.Suite{77} },
		"kind twice":   func(c *Config) { c.Contexts = []ContextKind{1, 1} },
		"many kinds":   func(c *Config) { c.Contexts = make([]ContextKind, MaxContexts+1) },
		"no issuer":    func(c *Config) { c.Issue = nil },
		"lane to self": func(c *Config) { c.Peer = c.Local },
	} {
		c := testConfig(keyed(1))
		edit(&c)
		if _, err := NewClient(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExporterFails sees no lane without the session's secret.
func TestExporterFails(t *testing.T) {
	for name, export := range map[string]func(string, []byte, int) ([]byte, error){
		"error": func(string, []byte, int) ([]byte, error) { return nil, errors.New("closed") },
		"short": func(string, []byte, int) ([]byte, error) { return make([]byte, 31), nil },
	} {
		client, server := must(NewClient(testConfig(keyed(1)))), must(NewServer(testConfig(keyed(2))))
		out := must(client.Start(&Session{Role: keyschedule.Client}, 0))
		out, err := server.Step(&Session{Role: keyschedule.Server, Export: export}, message(t, out, KindOffer), 0)
		if !errors.Is(err, ErrInternal) || len(out.Messages) != 1 || Kind(out.Messages[0].Payload[0]) != KindRefusal {
			t.Errorf("%s: %v, %d messages", name, err, len(out.Messages))
		}
	}
}

// FuzzStep throws messages at both ends of a lane and sees that nothing panics, grows or leaves the lane half closed.
func FuzzStep(f *testing.F) {
	for _, m := range testMessages() {
		f.Add(m.Append(nil), true)
		f.Add(m.Append(nil), false)
	}
	f.Fuzz(func(t *testing.T, payload []byte, toServer bool) {
		p := newEnds(t)
		n, s := p.client, p.cs
		if toServer {
			n, s = p.server, p.ss
		}
		if len(payload) > 18 && Kind(payload[0]) > KindRefusal {
			copy(payload[2:], n.id[:]) // or nearly all would be for another lane
		}
		for range 3 {
			_, err := n.Step(s, payload, p.now)
			if errors.Is(err, ErrViolation) && !n.Closed() {
				t.Fatal("a violation leaves the lane open")
			}
		}
		if len(n.ids.own) > ConnectionIDs || len(n.ids.peer) > ConnectionIDs || len(n.ids.leaving) > maxLeaving {
			t.Fatal("memory grows")
		}
	})
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

// TestNextTick follows the machine's own times and sees that each call at one of them moves it on.
func TestNextTick(t *testing.T) {
	for _, side := range []func(p *ends) *Negotiation{
		func(p *ends) *Negotiation { return p.client }, func(p *ends) *Negotiation { return p.server },
	} {
		n := side(newEnds(t))
		last := int64(0)
		for ticks := 0; !n.Closed(); ticks++ {
			next := n.NextTick()
			if next <= last || ticks > 10 {
				t.Fatalf("tick %d at %d after %d", ticks, next, last)
			}
			n.Tick(next)
			last = next
		}
	}
}
